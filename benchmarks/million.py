"""Serve a few of very many sessions from memory, the others from a store.

    python benchmarks/million.py
    python benchmarks/million.py --sessions 20000 --held 2000 --store redis://localhost/9

A store is filled through its own code, then a real server runs over it. With a million sessions SQLite needs 9 GB on
the disk, and Redis 9 GB of memory and as much on the disk. The server runs on the first core, the load on the last one,
Redis where the system puts it. It needs wrk, for its own Redis redis-server, and for --picture matplotlib.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, NamedTuple

import numpy as np
from bundles import Served, served
from comparing import CPU, P50, P99, REQUESTS, Quantity, row
from cyclopts import App, Parameter
from durable import redis
from load import Load, closed_loop
from population import Places, counted, fill, name, patterns, requests, touch, zipf, zipf_order
from publishing import published
from redis import Redis
from report import Row, Table
from servers import Server, on_core, ours

from arraylstm import console
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.record import encode

app = App(name="million", help=__doc__, result_action="return_value")

LONG = 30 * 86400.0
"""Seconds that sessions live which are not to expire."""

MOST = 100_000
"""Most different requests of a run."""

LOADS = 'arraylstm_store_loads_total{outcome="found"}'
SWEPT = "arraylstm_store_swept_records_total"
EVENTS, RUNS = "arraylstm_session_events_total", "arraylstm_batch_size_count"
HELD, ZIPF, AWAY = "held", "Zipf", "not held"


QUANTITIES = (REQUESTS, CPU, P50, P99)
LOADED, ROWS = Quantity("loads", "/event", "loads"), Quantity("events", "/run of the model", "rows")


@dataclass(frozen=True)
class Driven(Load):
    """The result of a run over a store."""

    loads: float = 0.0
    """Sessions that were loaded, for each event."""
    rows: float = 0.0
    """Events in a run of the model."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, and where."""

    sessions: int = 1_000_000
    """Sessions in the store."""
    held: int = 50_000
    """Sessions that the server holds in memory."""
    exponent: float = 1.0
    """Exponent of the Zipf-like pattern."""
    connections: int = 16
    """Connections that send one event a request."""
    seconds: float = 8.0
    """Length of each run, in whole seconds."""
    rounds: int = 3
    """Rounds; each has every pattern once, and the median is shown."""
    expiring: int = 100_000
    """Sessions that expire while the server serves."""
    lifetime: float = 60.0
    """Seconds that those sessions live; it should be longer than it takes to write them."""
    watched: int = 9
    """Runs during which they expire."""
    sqlite: bool = True
    """Measure SQLite."""
    store: tuple[str, ...] = ()
    """Redis databases to measure, which must be empty; without this, a Redis of its own that syncs every second."""
    folder: Path | None = None
    """Folder on the disk to measure; by default the one for temporary files."""
    server_core: int = 0
    """Core of the server."""
    client_core: int = 1
    """Core of the load."""
    json: Path | None = None
    """File to write the results to as JSON."""
    picture: Path | None = None
    """File to draw the results to."""


class Place(NamedTuple):
    """A store to measure: its name, its URL, an empty one beside it, and what tells its size."""

    name: str
    url: str
    empty: str
    size: Callable[[], int]
    expired: Callable[[Server], float]


@contextmanager
def sqlite_place(folder: Path) -> Iterator[Place]:
    """An SQLite file, which is deleted in the end."""
    path = folder / "sessions.db"

    def size() -> int:
        return sum(file.stat().st_size for file in folder.glob("sessions.db*"))

    yield Place(
        "SQLite", f"sqlite:{path}", f"sqlite:{folder / 'empty.db'}", size, lambda server: counted(server)[SWEPT]
    )
    for file in folder.glob("*.db*"):
        file.unlink()


@contextmanager
def redis_place(url: str | None, folder: Path) -> Iterator[Place]:
    """A Redis that is there, or one that is started."""
    with ExitStack() as stack:
        if url is None:
            url = stack.enter_context(redis(folder / "redis", "everysec", "--auto-aof-rewrite-percentage", "0"))
        client = stack.enter_context(Redis.from_url(url))
        yield Place(
            "Redis",
            url,
            f"{url}?prefix=empty",
            lambda: int(client.info("memory")["used_memory"]),
            lambda server: float(client.info("stats")["expired_keys"]),
        )


# -- what is measured ---------------------------------------------------------------------------------------------


def filled(place: Place, model: Served, sizes: Sizes) -> Table:
    """Fill a store; return what a session takes in it."""
    states = patterns(model.bundle)[0].tensors
    whole = sum(tensor.nbytes for tensor in states.values())
    raw = whole - states["logits"].nbytes
    record = len(encode(patterns(model.bundle)[0])) + len(name(0))
    before, began = place.size(), perf_counter()
    asyncio.run(fill(place.url, model, range(sizes.sessions), LONG))
    seconds = perf_counter() - began
    stored = (place.size() - before) / sizes.sessions
    rows = [
        Row(label, {"/ state": count / raw, "/ state and logits": count / whole}, {"bytes": count})
        for label, count in (("state", raw), ("state and logits", whole), ("record", record), (place.name, stored))
    ]
    note = f"{sizes.sessions:,} sessions were written in {seconds:.0f} s, {seconds / sizes.sessions * 1e6:.0f} us each"
    return Table(f"{place.name}: bytes a session", rows, [note])


async def direct(place: Place, sizes: Sizes) -> list[Row]:
    """Return what it costs to load sessions straight from the store, from all over it."""
    store = await open_store(place.url, durable=True, ttl=LONG, timeout=60)
    draw, rows = np.random.default_rng(4), []
    for batch in (1, 64):
        times = []
        for _ in range(200):
            keys = [name(one) for one in draw.choice(sizes.sessions, batch, replace=False)]
            began = perf_counter()
            found = await store.load(keys)
            times.append(perf_counter() - began)
            assert all(isinstance(one, bytes) for one in found.values())
        figures = {"us/session": median(times) / batch * 1e6, "p99 us/session": np.percentile(times, 99) / batch * 1e6}
        rows.append(Row(f"load of {batch}", {}, figures))
    await store.close()
    return rows


def starts(place: Place, model: Served, sizes: Sizes) -> Table:
    """Return how long a server takes to start over the full store and over an empty one, and what it reads."""
    times: dict[str, list[tuple[float, float]]] = {place.empty: [], place.url: []}
    for _ in range(sizes.rounds):
        for url, found in times.items():
            began = perf_counter()
            with over(url, model, sizes) as server:
                found.append((perf_counter() - began, read_bytes(server)))
    (empty, empty_read), (full, full_read) = (tuple(map(median, zip(*found))) for found in times.values())
    rows = [
        Row("empty", {}, {"seconds": empty, "MB read": empty_read / 1e6}),
        Row("full", {"/ empty": full / empty}, {"seconds": full, "MB read": full_read / 1e6}),
    ]
    return Table(f"{place.name}: a start of the server", rows)


def over(url: str, model: Served, sizes: Sizes) -> Server:
    """Return a server over a store."""
    options = ("--sessions", url, "--session-ttl", str(LONG), "--max-sessions", str(sizes.held))
    return ours(model.bundle, sizes.server_core, *options, patience=120)


def read_bytes(server: Server) -> float:
    """Return how many bytes the server's processes have read from files and sockets."""
    return sum(int(Path(f"/proc/{pid}/io").read_text().split()[1]) for pid in server.pids())


def served_sessions(place: Place, model: Served, sizes: Sizes) -> Table:
    """Return what requests cost for sessions that are held, that are not, and by a Zipf-like pattern."""
    order = np.random.default_rng(5).permutation(sizes.sessions)
    own, others = order[: sizes.held // 10], order[sizes.held :]
    results: dict[str, list[Load]] = {HELD: [], AWAY: [], ZIPF: []}
    with over(place.url, model, sizes) as server:
        resident = memory(server)
        popular = zipf_order(sizes.sessions)[: sizes.held]
        touch(server, popular[::-1].tolist())
        taken = memory(server) - resident
        drawn: Places = zipf(sizes.sessions, 40 * sizes.held, sizes.exponent)
        far, near = (iter(np.array_split(places, sizes.rounds)) for places in (others, drawn))
        for _ in range(sizes.rounds):
            touch(server, own.tolist())
            results[HELD].append(run(server, np.random.default_rng(6).permutation(own), model, sizes))
            results[AWAY].append(run(server, next(far), model, sizes))
            touch(server, popular[len(popular) // 5 :: -1].tolist())  # what the runs before have put out
            results[ZIPF].append(run(server, next(near), model, sizes))
    shown = (*QUANTITIES, LOADED, ROWS)
    rows = [
        row(pattern, found, shown, to=(HELD, results[HELD]), compared=QUANTITIES) for pattern, found in results.items()
    ]
    notes = [
        f"{sizes.held:,} sessions took {taken / sizes.held:.0f} bytes each of the server's memory",
        f"The load average was {os.getloadavg()[0]:.1f}",
    ]
    return Table(f"{place.name}: {sizes.sessions:,} sessions, {sizes.connections} connections", rows, notes)


def run(server: Server, places: Places, model: Served, sizes: Sizes) -> Driven:
    """Send requests by a pattern; return what came of it."""
    before = counted(server)
    load = closed_loop(
        server, requests(places[:MOST], model.num_items), sizes.connections, sizes.seconds, sizes.client_core
    )
    after = counted(server)
    loads, events, runs = (after[name] - before.get(name, 0.0) for name in (LOADS, EVENTS, RUNS))
    known = {field.name: getattr(load, field.name) for field in fields(Load)}
    return Driven(**known, loads=loads / events, rows=events / runs)


def figures(loads: Sequence[Load], quantities: Sequence[Quantity]) -> dict[str, float]:
    """Return the medians of some runs."""
    return {f"{one.name} {one.unit}": one.figure(loads) for one in quantities}


def memory(server: Server) -> int:
    """Return the bytes of memory that the server's processes have."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in server.pids()) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def expiry(place: Place, model: Served, sizes: Sizes) -> Table:
    """Let some sessions expire while the server serves others by the Zipf-like pattern."""
    asyncio.run(fill(place.url, model, range(sizes.sessions, sizes.sessions + sizes.expiring), sizes.lifetime))
    drawn = zipf(sizes.sessions, 20 * sizes.held, sizes.exponent)
    loads: list[Load] = []
    expired: list[bool] = []
    total = 0.0
    with over(place.url, model, sizes) as server:
        touch(server, zipf_order(sizes.sessions)[: sizes.held // 5].tolist())
        for part in np.array_split(drawn, sizes.watched):
            before = place.expired(server)
            load = closed_loop(
                server, requests(part[:MOST], model.num_items), sizes.connections, sizes.seconds, sizes.client_core
            )
            gone = place.expired(server) - before
            total += gone
            loads.append(load)
            expired.append(gone > 0)
        spent = counted(server).get('arraylstm_store_operation_duration_seconds_sum{operation="sweep"}', 0.0)
    # A sweep of the server's is counted at its end, and may have begun some runs earlier.
    earlier = int(spent // sizes.seconds) + 1 if spent else 0
    spans = [any(expired[place : place + 1 + earlier]) for place in range(len(loads))]
    quiet = [load for load, span in zip(loads, spans) if not span]
    busy = [load for load, span in zip(loads, spans) if span]
    rows = [Row("nothing expires", {}, figures(quiet, QUANTITIES))] if quiet else []
    if busy:
        ratios = {f"{one.name} / quiet": one.middle(busy) / one.middle(quiet) for one in QUANTITIES} if quiet else {}
        rows.append(Row("sessions expire", ratios, figures(busy, QUANTITIES)))
    note = f"{total:,.0f} of {sizes.expiring:,} sessions expired, during {len(busy)} of {sizes.watched} runs"
    swept = [f"The server's sweeps took {spent:.1f} s in all"] if place.name == "SQLite" else []
    return Table(f"{place.name}: expiry", rows, [note, *swept])


def measured(place: Place, model: Served, sizes: Sizes) -> Iterator[Table]:
    """Yield the tables of a store."""
    yield filled(place, model, sizes)
    yield Table(f"{place.name}: loads without a server, one after the other", asyncio.run(direct(place, sizes)))
    with on_core(sizes.client_core):
        yield starts(place, model, sizes)
        yield served_sessions(place, model, sizes)
    yield expiry(place, model, sizes)


def draw(path: Path, tables: Sequence[Table]) -> None:
    """Draw bytes a session and the times of requests, for each store."""
    import matplotlib.pyplot as plt

    places = [table for table in tables if "connections" in table.title]
    sizes = {
        row.name: row.figures["bytes"] for table in tables if "bytes a session" in table.title for row in table.rows
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    bars = left.barh(list(sizes), list(sizes.values()), color="#4477aa")
    left.bar_label(bars, fmt="{:,.0f}", padding=3)
    left.set(title="Bytes a session", xlim=(0, 1.15 * max(sizes.values())))
    left.invert_yaxis()
    shown = [f"{one.name} / {HELD}" for one in (CPU, P50, P99)]
    bars_each = {
        f"{table.title.partition(':')[0]}, {row.name}": [row.ratios[ratio] for ratio in shown]
        for table in places
        for row in table.rows
        if row.name != HELD
    }
    width = 0.8 / len(bars_each)
    for place, (label, ratios) in enumerate(bars_each.items()):
        at = np.arange(len(shown)) + (place - (len(bars_each) - 1) / 2) * width
        right.bar_label(right.bar(at, ratios, width, label=label, color=plt.cm.Paired(place)), fmt="%.1f")
    right.axhline(1, color="black", linewidth=0.8)
    right.set_xticks(range(len(shown)), [ratio.partition(" /")[0] for ratio in shown])
    right.set(title=f"A request's cost, beside that of a session that is {HELD}", ylim=(0, right.get_ylim()[1] * 1.35))
    right.legend(frameon=False, ncols=2)
    figure.savefig(path, dpi=110)


def tables(sizes: Sizes) -> Iterator[Table]:
    """Measure each store."""
    with ExitStack() as stack:
        model = stack.enter_context(served(None))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=sizes.folder)))
        places = [sqlite_place(folder)] if sizes.sqlite else []
        own = [None] if shutil.which("redis-server") else []
        places += [redis_place(url, folder) for url in sizes.store or own]
        for opened in places:
            with opened as place:
                yield from measured(place, model, sizes)


@app.default
def main(*, sizes: Annotated[Sizes, Parameter(name="*")] = Sizes()) -> int:
    """Measure each store. Exit status: 1 if a server failed."""
    made = published("million", tables(sizes), sizes, sizes.json)
    if made is None:
        return 1
    if sizes.picture:
        draw(sizes.picture, made)
    return 0


if __name__ == "__main__":
    console.run(app)
