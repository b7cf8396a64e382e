"""Time the stores of sessions: a record's encoding, and its commit and load in batches.

    python benchmarks/stores.py
    python benchmarks/stores.py --url redis://localhost --folder /var/lib/arraylstm

Every store keeps the same sessions, with a record of the given sizes each. A batch changes other sessions than the one
before it. Times are wall times: a durable store mostly waits. The column "/ fdatasync" divides a batch by one plain
write of as many bytes over others, with fdatasync. With strace installed, SQLite's syncs are counted too.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
from cyclopts import App, Parameter
from msgspec.structs import replace
from report import Row, Table, output, show, write_json

from arraylstm_serve.stores.base import Change, Store
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.record import Record, decode, encode, new_write

app = App(name="stores", help=__doc__, result_action="return_value")

TTL = 3600.0
COUNTED = 100
"""Transactions in which SQLite's syncs are counted."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The sizes of a record, and what to measure."""

    hidden_size: int = 128
    """H, hidden units."""
    k: int = 4
    """Memory cells a unit."""
    num_items: int = 1000
    """V, the width of the logits."""
    batch: list[int] = field(default_factory=lambda: [1, 16, 64, 256])
    """Records in a batch."""
    sessions: int = 2048
    """Sessions in a store."""
    rounds: int = 50
    """Batches of each size; the median is shown."""
    folder: Path | None = None
    """Folder on the disk to measure; by default the one for temporary files."""
    url: list[str] = field(default_factory=list)
    """Further stores, as in --sessions of arraylstm-serve. Their records are left behind."""
    json: Path | None = None
    """File to write the results to as JSON."""


def sample(options: Options, place: int) -> Record:
    """Return the first record of a session."""
    draw = np.random.default_rng(place)
    tensors = {
        "state_hidden": draw.random(options.hidden_size, np.float32),
        "state_cells": draw.random((options.k, options.hidden_size), np.float32),
        "logits": draw.random(options.num_items, np.float32),
    }
    recent = tuple(f"item-{item}" for item in draw.integers(0, options.num_items, 64))
    return Record(
        key=f"session-{place}",
        incarnation=new_write(),
        version=1,
        writes=(new_write(),),
        model="0" * 64,
        step=80,
        tensors=tensors,
        recent=recent,
    )


class Sessions:
    """Sessions in a store, changed in turn."""

    def __init__(self, options: Options) -> None:
        self.records = [sample(options, place) for place in range(options.sessions)]
        self.next = 0

    def changes(self, count: int) -> list[Change]:
        """Return the next changes of so many sessions."""
        places = [(self.next + place) % len(self.records) for place in range(count)]
        self.next += count
        return [self._change(place) for place in places]

    def keys(self, count: int) -> list[str]:
        """Return the next keys of so many sessions."""
        return [change.key for change in self.changes(count)]

    def _change(self, place: int) -> Change:
        before = self.records[place]
        after = replace(before, version=before.version + 1, writes=(new_write(), *before.writes[:15]))
        self.records[place] = after
        return Change(after.key, before.stamp, encode(after))


async def median_seconds(rounds: int, prepare: Callable[[], object], act: Callable[..., Awaitable[object]]) -> float:
    """Return the median time of a call; its argument is prepared before the clock starts."""
    seconds = []
    for _ in range(rounds):
        argument = prepare()
        began = perf_counter()
        await act(argument)
        seconds.append(perf_counter() - began)
    return median(seconds)


async def measure(store: Store, options: Options, plain: dict[int, float]) -> list[Row]:
    """Return a row for each size of batch."""
    sessions = Sessions(options)
    every = [Change(record.key, None, encode(record)) for record in sessions.records]
    assert set(await store.commit(every)) == {"applied"}
    rows = []

    async def commit(changes: list[Change]) -> None:
        assert set(await store.commit(changes)) == {"applied"}

    for batch in options.batch:
        seconds = await median_seconds(options.rounds, lambda batch=batch: sessions.changes(batch), commit)
        keys = iter([record.key for record in sessions.records] * (options.rounds * batch // options.sessions + 1))
        load = await median_seconds(options.rounds, lambda keys=keys, batch=batch: [*islice(keys, batch)], store.load)
        figures = {"commit us/record": seconds / batch * 1e6, "load us/record": load / batch * 1e6}
        name = store.describe().partition(" at ")[0].partition(" (")[0]
        synced = re.search(r"synchronous=\w+", store.describe())
        name = f"{name.partition(',')[0]} {synced[0] if synced else ''}".strip()
        rows.append(Row(f"{name}, batch {batch}", {"/ fdatasync": seconds / plain[batch]}, figures))
    return rows


def plain_seconds(folder: Path, batch: int, record: bytes, rounds: int) -> float:
    """Return the median time of writing so many records over others, with fdatasync."""
    seconds = []
    with (folder / "plain").open("wb", buffering=0) as file:
        file.write(record * batch)
        os.fsync(file.fileno())
        for _ in range(rounds):
            began = perf_counter()
            file.seek(0)
            file.write(record * batch)
            os.fdatasync(file.fileno())
            seconds.append(perf_counter() - began)
    return median(seconds)


def encoding(options: Options) -> Table:
    """Return what a record's encoding costs."""
    record = sample(options, 0)
    data = encode(record)
    raw = sum(tensor.nbytes for tensor in record.tensors.values())

    def microseconds(act: Callable[[], object]) -> float:
        began = perf_counter()
        for _ in range(1000):
            act()
        return (perf_counter() - began) * 1e3

    copy = min(microseconds(lambda: b"".join([tensor.data for tensor in record.tensors.values()])) for _ in range(5))
    times = {
        "encode": min(microseconds(lambda: encode(record)) for _ in range(5)),
        "decode": min(microseconds(lambda: decode(record.key, data)) for _ in range(5)),
    }
    rows = [Row(name, {"/ plain copy": time / copy}, {"us": time}) for name, time in times.items()]
    return Table(f"A record: {len(data)} bytes, of which {raw} are tensors", rows)


def syncs(options: Options, folder: Path, *, durable: bool) -> str:
    """Return how often SQLite syncs in so many transactions, by strace."""
    program = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1]); import stores\n"
        "asyncio.run(stores.transactions(sys.argv[2], sys.argv[3] == 'True'))"
    )
    path = folder / f"counted-{durable}.db"
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", sys.executable, "-c", program]
    done = subprocess.run(
        [*command, str(Path(__file__).parent), f"sqlite:{path}", str(durable)],
        capture_output=True,
        text=True,
        check=True,
    )
    calls = dict(re.findall(r"(\d+) +(fsync|fdatasync)$", done.stderr, re.MULTILINE))
    counts = ", ".join(f"{count} {name}" for count, name in calls.items()) or "none"
    return f"SQLite synchronous={'FULL' if durable else 'NORMAL'}, {COUNTED} transactions of 16 records: {counts}"


async def transactions(url: str, durable: bool) -> None:
    """Commit so many batches."""
    store = await open_store(url, durable=durable, ttl=TTL)
    sessions = Sessions(Options(sessions=16))
    await store.commit([Change(record.key, None, encode(record)) for record in sessions.records])
    for _ in range(COUNTED - 1):
        assert set(await store.commit(sessions.changes(16))) == {"applied"}
    await store.close()


async def all_stores(options: Options, folder: Path) -> Table:
    """Measure the stores."""
    record = encode(sample(options, 0))
    plain = {batch: plain_seconds(folder, batch, record, options.rounds) for batch in options.batch}
    rows: list[Row] = []
    places = [("memory", True), (f"sqlite:{folder / 'full.db'}", True), (f"sqlite:{folder / 'normal.db'}", False)]
    for url, durable in [*places, *((url, True) for url in options.url)]:
        store = await open_store(url, durable=durable, ttl=TTL, timeout=20)
        rows += await measure(store, options, plain)
        await store.close()
    notes = (
        [f"Writing one record with fdatasync takes {plain[options.batch[0]] * 1e6:.0f} us"]
        if 1 in options.batch
        else []
    )
    if shutil.which("strace"):
        notes += [syncs(options, folder, durable=durable) for durable in (True, False)]
    return Table("Stores", rows, notes)


@app.default
def main(*, options: Annotated[Options, Parameter(name="*")] = Options()) -> None:
    """Measure a record's encoding, and the stores."""
    with TemporaryDirectory(dir=options.folder) as folder:
        tables = [encoding(options), asyncio.run(all_stores(options, Path(folder)))]
    for table in tables:
        show(table, output())
    if options.json:
        write_json(options.json, asdict(options), ("arraylstm-serving", "msgspec", "numpy"), tables)


if __name__ == "__main__":
    app()
