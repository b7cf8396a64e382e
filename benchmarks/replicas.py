"""Compare one server with two replicas over one Redis, and nginx by turns with nginx by session.

    python benchmarks/replicas.py
    python benchmarks/replicas.py --connections 16 --fsync always

All programs share the given cores: the servers, nginx, Redis and the load. So CPU time a request says more than
requests a second, and ratios within a round say more than figures. It needs wrk, nginx and redis-server.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated

from bundles import Served, served
from comparing import CPU, P50, P99, REQUESTS, Quantity, in_turn, row
from cyclopts import App, Parameter
from durable import redis
from events import single_events
from load import Load, closed_loop
from publishing import published
from redis import Redis
from report import Row, Table
from servers import HOST, Server, cpu_seconds, free_port
from timing import TimingOptions, single_thread

from arraylstm import console
from arraylstm_serve.replicas.nginx import configuration, find
from arraylstm_serve.settings import Settings

app = App(name="replicas", help=__doc__, result_action="return_value")

ALONE = "one server"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, and where."""

    connections: tuple[int, ...] = (16, 64)
    """Connections that send one event a request."""
    seconds: float = 4.0
    """Length of each run, in whole seconds."""
    fsync: str = "everysec"
    """Redis' appendfsync."""
    cores: str = "0,1"
    """Cores that all programs share, as taskset takes them."""


@dataclass(frozen=True)
class Parts(Load):
    """The result of a run, with the CPU time of an answer by who took it; `cpu` is the servers'."""

    balancer: float = 0.0
    store: float = 0.0

    @property
    def whole(self) -> float:
        """CPU time of an answer in all programs but the load's."""
        return self.cpu + self.balancer + self.store


BALANCER, STORE, WHOLE = (
    Quantity(name, "µs", field, 1e6)
    for name, field in (("nginx CPU", "balancer"), ("Redis CPU", "store"), ("all CPU", "whole"))
)


@dataclass(frozen=True)
class Site:
    """Servers, and where requests for them go."""

    name: str
    port: int
    servers: Server
    balancer: Callable[[], float]
    store: Callable[[], float]

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the servers have taken."""
        return self.servers.cpu_seconds


def replicas(model: Served, url: str, count: int, cores: str) -> Server:
    """Return so many replicas as one server, whose port is the last one's, without a balancer."""
    port = free_ports(count)
    command = [sys.executable, "-m", "arraylstm_serve", model.bundle, "--port", str(port), "--sessions", url]
    several = ["--replicas", str(count), "--balancer", "none"] if count > 1 else []
    return Server("replicas", [*command, *several], port + count - 1, cores, patience=90)


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nothing listens on, most likely."""
    while True:
        first = free_port()
        if first + count < 60_000:
            return first


@contextmanager
def nginx(folder: Path, servers: Sequence[int], *, by_session: bool, cores: str) -> Iterator[tuple[int, int]]:
    """Run nginx before servers at some ports; yield its port and its process."""
    folder.mkdir()
    port = free_port()
    text = configuration(Settings(), f"{HOST}:{port}", folder, [f"{HOST}:{server}" for server in servers])
    if not by_session:
        text = text.replace("    hash $arraylstm_session consistent;\n", "")
    (folder / "nginx.conf").write_text(text)
    program = find(Settings(balancer="nginx"))
    command = ["taskset", "--cpu-list", cores, program, "-c", folder / "nginx.conf", "-p", folder, "-e", "stderr"]
    process = subprocess.Popen(command)
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def family_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its living children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_seconds(pid) + sum(map(cpu_seconds, map(int, children)))


@contextmanager
def sites(model: Served, folder: Path, sizes: Sizes) -> Iterator[list[Site]]:
    """Run everything that is compared; each has its own sessions."""
    with ExitStack() as stack:
        enter = stack.enter_context
        url = enter(redis(folder / "redis", sizes.fsync))
        with Redis.from_url(url) as client:
            store = partial(cpu_seconds, int(client.info("server")["process_id"]))

        def servers(count: int, name: str) -> Server:
            return enter(replicas(model, f"{url}?prefix={name}", count, sizes.cores))

        def behind(name: str, count: int, *, by_session: bool) -> Site:
            them = servers(count, name.removeprefix("nginx, ").replace(" ", "-"))
            ports = [them.port - place for place in range(count)]
            at, pid = enter(nginx(folder / name, ports, by_session=by_session, cores=sizes.cores))
            return Site(name, at, them, partial(family_seconds, pid), store)

        alone = servers(1, "alone")
        yield [
            Site(ALONE, alone.port, alone, lambda: 0.0, store),
            behind("nginx, 1", 1, by_session=True),
            behind("nginx, 2 in turn", 2, by_session=False),
            behind("nginx, 2 by session", 2, by_session=True),
        ]


def measure(sizes: Sizes, events: Sequence[bytes], connections: int, site: Site) -> Parts:
    """Return the result of a run, with everybody's CPU time."""
    balancer, store = site.balancer(), site.store()
    load = closed_loop(site, events, connections, sizes.seconds, sizes.cores)
    answers = load.rate * sizes.seconds
    known = {field.name: getattr(load, field.name) for field in fields(Load)}
    return Parts(**known, balancer=(site.balancer() - balancer) / answers, store=(site.store() - store) / answers)


def rows(results: dict[str, list[Load]]) -> list[Row]:
    """Return the rows of all sites, compared with the server alone, and by session with in turn."""
    shown = (REQUESTS, CPU, BALANCER, STORE, WHOLE, P50, P99)
    compared = (REQUESTS, CPU, WHOLE, P99)
    first = [row(name, loads, shown, to=(ALONE, results[ALONE]), compared=compared) for name, loads in results.items()]
    turns = "nginx, 2 in turn"
    last = row(
        "by session / in turn", results["nginx, 2 by session"], (), to=(turns, results[turns]), compared=compared
    )
    ratios = {name.replace(f"/ {turns}", f"/ {ALONE}"): ratio for name, ratio in last.ratios.items()}
    return [*first, Row(last.name, ratios)]


def tables(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Measure all sites with each number of connections."""
    with ExitStack() as stack:
        model = stack.enter_context(served(None))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = stack.enter_context(sites(model, folder, sizes))
        for connections in sizes.connections:
            events = single_events(model, connections)
            runs = {site.name: partial(measure, sizes, events, connections, site) for site in found}
            for run in runs.values():
                run()  # every session is there before it counts
            busy = os.getloadavg()[0]
            results = in_turn(runs, rounds)
            note = f"The load average was {busy:.1f} before and {os.getloadavg()[0]:.1f} after"
            yield Table(f"{connections} connections", rows(results), [note])


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(),
) -> int:
    """Measure one event a request before each. Exit status: 1 if a server failed."""
    single_thread()
    made = published("replicas", tables(sizes, timing.rounds), sizes, timing.json)
    return 1 if made is None else 0


if __name__ == "__main__":
    console.run(app)
