"""Compare arraylstm-serve with its sessions in a store with the same server that keeps them in memory alone.

    python benchmarks/durable.py
    python benchmarks/durable.py --store redis://localhost/9 --folder /var/lib/arraylstm

Each server runs on the first core and the load on the last one; Redis runs where the system puts it. Every round
measures all of them. It needs wrk and, unless --store names a store, redis-server.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from bundles import Served, served
from comparing import CPU, P50, P99, REQUESTS, in_turn, row
from cyclopts import App, Parameter
from events import single_events
from load import Load, closed_loop
from population import counted
from publishing import published
from report import Table
from servers import Server, free_port, on_core, ours, until_open
from timing import TimingOptions, single_thread

from arraylstm import console

app = App(name="durable", help=__doc__, result_action="return_value")

MEMORY = "memory"
BEHIND = ", --ack memory"
COMMITS = 'arraylstm_store_operation_duration_seconds_count{operation="commit"}'
ACK_MEMORY = ("--ack", "memory", "--sticky")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, and where."""

    connections: tuple[int, ...] = (1, 64)
    """Connections that send one event a request."""
    seconds: float = 3.0
    """Length of each run, in whole seconds."""
    store: tuple[str, ...] = ()
    """Stores to measure besides SQLite, as in --sessions; without this, a Redis that syncs every second, and one that
    syncs every write."""
    folder: Path | None = None
    """Folder on the disk to measure; by default the one for temporary files."""
    server_core: int = 0
    """Core of the servers; only one server works at a time."""
    client_core: int = 1
    """Core of the load."""


@contextmanager
def stores(sizes: Sizes, folder: Path) -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield the stores to measure, as the server's flags, by their names in the tables."""
    with ExitStack() as stack:
        found = {"SQLite": (f"sqlite:{folder / 'sessions.db'}",)} | {url: (url,) for url in sizes.store}
        found[f"SQLite{BEHIND}"] = (f"sqlite:{folder / 'behind.db'}", *ACK_MEMORY)
        if not sizes.store and shutil.which("redis-server"):
            for fsync in ("everysec", "always"):
                url = stack.enter_context(redis(folder / fsync, fsync))
                found[f"Redis {fsync}"] = (url,)
                found[f"Redis {fsync}{BEHIND}"] = (f"{url}?prefix=behind", *ACK_MEMORY)
        yield found


@contextmanager
def redis(folder: Path, fsync: str, *options: str) -> Iterator[str]:
    """Run a Redis of its own; yield its URL."""
    folder.mkdir()
    port = free_port()
    place = [
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        fsync,
        "--save",
        "",
        *options,
    ]
    server = subprocess.Popen(["redis-server", *place], stdout=subprocess.DEVNULL)
    try:
        until_open(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def _measure(sizes: Sizes, events: Sequence[bytes], connections: int, server: Server) -> Load:
    return closed_loop(server, events, connections, sizes.seconds, sizes.client_core)


def syncs(model: Served, sizes: Sizes, folder: Path, flags: Sequence[str]) -> str:
    """Return how many syncs strace counts of a server that is loaded for a moment, and in how many commits."""
    log, connections = folder / "syncs", max(sizes.connections)
    tracer = ("strace", "-f", "-c", "-o", log, "-e", "trace=fsync,fdatasync")
    with ours(model.bundle, sizes.server_core, "--sessions", *flags, tracer=tracer, patience=90) as server:
        events = single_events(model, connections)
        closed_loop(server, events, connections, sizes.seconds, sizes.client_core)
        found = counted(server)
    calls = {
        name: int(count) for count, name in re.findall(r"(\d+) +(fsync|fdatasync)$", log.read_text(), re.MULTILINE)
    }
    counts = ", ".join(f"{count} {name}" for name, count in calls.items()) or "no sync"
    return f"{found['arraylstm_session_events_total']:.0f} events in {found[COMMITS]:.0f} commits: {counts}"


def tables(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Measure one event a request over each store, and count syncs."""
    with ExitStack() as stack:
        model = stack.enter_context(served(None))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=sizes.folder)))
        found = {MEMORY: (MEMORY,)} | stack.enter_context(stores(sizes, folder))
        stack.enter_context(on_core(sizes.client_core))
        servers = {
            name: stack.enter_context(ours(model.bundle, sizes.server_core, "--sessions", *flags))
            for name, flags in found.items()
        }
        for connections in sizes.connections:
            events = single_events(model, connections)
            measure = partial(_measure, sizes, events, connections)
            results = in_turn({name: partial(measure, server) for name, server in servers.items()}, rounds)
            shown = (REQUESTS, CPU, P50, P99)
            rows = [
                row(name, loads, shown, to=(MEMORY, results[MEMORY]), compared=(REQUESTS, CPU, P99))
                for name, loads in results.items()
            ]
            note = f"The load average was {os.getloadavg()[0]:.1f} after the runs"
            yield Table(f"{connections} connections", rows, [note])
        if shutil.which("strace"):
            places = {"--ack store": (f"sqlite:{folder / 'counted.db'}",)}
            places["--ack memory"] = (f"sqlite:{folder / 'behind-counted.db'}", *ACK_MEMORY)
            notes = [f"{name}: {syncs(model, sizes, folder, flags)}" for name, flags in places.items()]
            yield Table("Syncs of a server over SQLite, counted by strace", [], notes)


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(),
) -> int:
    """Measure one event a request over each store. Exit status: 1 if a server failed."""
    single_thread()
    made = published("durable", tables(sizes, timing.rounds), sizes, timing.json)
    return 1 if made is None else 0


if __name__ == "__main__":
    console.run(app)
