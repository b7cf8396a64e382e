"""Compare the speed of arraylstm-serve with raw ASGI without inference and with the server that most people write.

    python benchmarks/serving.py                          # about nine minutes
    python benchmarks/serving.py --parts bulk --parts stream

The servers run on one core and the load on another. Every round measures all of them, so a disturbance affects all.
The tables show the median round of each ratio and figure. It needs wrk, and two cores with nothing else to do.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Annotated, Literal

import numpy as np
from apps.stepping import open_graph, zero_states
from bundles import Served, served
from comparing import CLIENT, CPU, EVENTS, P50, P99, P999, REQUESTS, SERVER, Key, Run, compare, compared, in_turn, row
from cyclopts import App, Parameter
from events import BULK, STREAM, bulk_events, single_events, stream_events
from load import Load, LoadError, NotThereError, closed_loop, get, open_loop, stream
from report import Row, Table, output, show, write_json
from servers import Server, ServerError, floor, naive, on_core, ours
from timing import TimingOptions, single_thread

from arraylstm import console
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.settings import Settings

app = App(name="serving", help=__doc__, result_action="return_value")

OURS, RAW, NAIVE = "ours", "raw", "naive"
ALONE, ENGINE, HTTP = "graph alone", "the engine", "HTTP"
FAILED, NOT_FOUND = 1, 404
PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "uvicorn",
    "uvloop",
    "httptools",
    "fastapi",
    "pydantic",
    "picows",
    "numpy",
)

_BUSY = 64  # connections that saturate a server
_MANY = 256  # connections, more than a server needs for its best rate
_BULK_CONNECTIONS = 4
_STREAMS = ((64, 1), (16, 16))  # connections, messages in flight on each
_ENGINE_BATCH = 64
_TOP_K = 10  # as for requests that do not say
_PROBES = 50.0  # requests of /healthz a second: few compared with the load
_PROBE_CONNECTIONS = 16  # so few that accepting them takes no time to speak of
_LEAD = 0.3  # seconds of the saturating load alone, before the probes and after them

Part = Literal["requests", "bulk", "stream", "open-loop", "healthz"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, and where."""

    parts: tuple[Part, ...] = ("requests", "bulk", "stream", "open-loop", "healthz")
    """Parts to run."""
    connections: tuple[int, ...] = (1, 16, 64, 256)
    """Connections that send one event a request."""
    bulk: tuple[int, ...] = (100, 1000)
    """Events of a bulk request."""
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Arrival rates of the open loop, as shares of the rate that a server reaches with 64 connections."""
    seconds: float = 3.0
    """Length of each run; wrk's are whole seconds."""
    bundle: Annotated[Path | None, Parameter(help="Bundle to serve [default: array, V=1000, H=128, k=4, E=64].")] = None
    server_core: int = 0
    """Core of the servers; only one server works at a time."""
    client_core: int = 1
    """Core of the load."""


@dataclass(frozen=True)
class Bench:
    """What the parts share: the running servers, their model, and how to measure them."""

    servers: Mapping[str, Server]
    model: Served
    sizes: Sizes
    rounds: int

    def events(self, name: str, connections: int) -> Run:
        """Return a closed loop of requests with one event each."""
        return self.closed(name, single_events(self.model, connections), connections)

    def closed(self, name: str, requests: Sequence[bytes], connections: int) -> Run:
        """Return a closed loop of requests."""
        sizes = self.sizes
        return lambda: closed_loop(self.servers[name], requests, connections, sizes.seconds, sizes.client_core)

    def warm_up(self) -> None:
        """Let every server begin its sessions, so that their memory is allocated before anything is timed."""
        for name in self.servers:
            self.events(name, _MANY)()

    def in_turn(self, runs: Mapping[Key, Run]) -> dict[Key, list[Load]]:
        """Return the results of every run, round by round."""
        return in_turn(runs, self.rounds)


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(),
) -> int:
    """Measure requests, bulk, streams, open loops and /healthz. Exit status: 1 if a server failed."""
    single_thread()
    out = output()
    tables: list[Table] = []
    try:
        with ExitStack() as stack:
            model = stack.enter_context(served(sizes.bundle))
            stack.enter_context(on_core(sizes.client_core))
            core = sizes.server_core
            started = [ours(model.bundle, core), floor(core), naive(model.step_graph, core)]
            bench = Bench({s.name: stack.enter_context(s) for s in started}, model, sizes, timing.rounds)
            bench.warm_up()
            for name in sizes.parts:
                for table in PARTS[name](bench):
                    show(table, out)
                    tables.append(table)
    except (LoadError, ServerError) as error:
        out.print(f"[red]{error}[/red]")
        return FAILED
    if timing.json is not None:
        write_json(timing.json, asdict(sizes) | {"rounds": timing.rounds}, PACKAGES, tables)
    return 0


# -- the parts ----------------------------------------------------------------------------------------------------


def requests(bench: Bench) -> list[Table]:
    """Compare throughput, tail latency and CPU time of requests with one event each."""
    counts = bench.sizes.connections
    loads = bench.in_turn({(name, count): bench.events(name, count) for count in counts for name in bench.servers})
    rows = {_connections(count): {name: loads[name, count] for name in bench.servers} for count in counts}
    tables = [
        compare(f"Requests with one event: {title}", rows, quantity)
        for title, quantity in (("throughput", REQUESTS), ("latency", P99), ("server CPU a request", CPU))
    ]
    if {_MANY, _BUSY} <= set(counts):
        title = f"Requests with one event: throughput of {_MANY} connections over that of {_BUSY}"
        crowded = {name: REQUESTS.ratio(loads[name, _MANY], loads[name, _BUSY]) for name in bench.servers}
        tables.append(Table(title, [Row(name, {f"{_MANY} / {_BUSY}": value}) for name, value in crowded.items()]))
    return tables


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def bulk(bench: Bench) -> list[Table]:
    """Compare events of bulk requests with the engine's steps, and the engine's steps with runs of the graph alone."""
    title = f"Bulk requests, {_BULK_CONNECTIONS} connections, beside the engine's own steps at B={_ENGINE_BATCH}"
    if bench.servers[OURS].request("POST", BULK, b"{}")[0] == NOT_FOUND:
        return [Table(title, [], [f"POST {BULK}: not there"])]
    core, seconds = bench.sizes.server_core, bench.sizes.seconds
    runs: dict[str, Run] = {
        ALONE: lambda: steps(graph_alone(bench.model), core, seconds),
        ENGINE: lambda: steps(engine(bench.model), core, seconds),
    }
    for size in bench.sizes.bulk:
        run = bench.closed(OURS, bulk_events(bench.model, size), _BULK_CONNECTIONS)
        runs[f"{size} events a request"] = partial(_per_event, run, size)
    loads = bench.in_turn(runs)
    alone, own = loads.pop(ALONE), loads.pop(ENGINE)
    shown = (EVENTS, CPU, P50, P99)
    return [
        Table(
            title,
            [
                *(row(name, loads[name], shown, to=(ENGINE, own), compared=(EVENTS, CPU)) for name in loads),
                row(ENGINE, own, shown, to=(ALONE, alone), compared=(EVENTS, CPU)),
                row(ALONE, alone, shown),
            ],
        )
    ]


def _per_event(run: Run, size: int) -> Load:
    load = run()
    return replace(load, rate=load.rate * size, cpu=load.cpu / size)


def graph_alone(model: Served) -> Callable[[], object]:
    """Return a run of the bare step graph."""
    graph = open_graph(str(model.step_graph))
    feeds = zero_states(graph, _ENGINE_BATCH) | {"items": np.arange(_ENGINE_BATCH) % model.num_items}
    return partial(graph.run, None, feeds)


def engine(model: Served) -> Callable[[], object]:
    """Return a step of the server's engine with all that an event needs: how likely its item was, and the top ten."""
    opened = open_engine(Bundle.load(model.bundle), Settings(device="cpu"), 1 + 2 * _ENGINE_BATCH)
    sources, targets = np.split(1 + np.arange(2 * _ENGINE_BATCH), 2)  # row 0 is the initial state
    items = np.arange(_ENGINE_BATCH) % model.num_items
    return partial(opened.step, sources, targets, items, [_TOP_K] * _ENGINE_BATCH)


def steps(step: Callable[[], object], core: int, seconds: float) -> Load:
    """Step a batch over and over on the servers' core, on one thread; each row counts as an answer."""
    with on_core(core):
        step()
        start, used, runs = perf_counter(), process_time(), 0
        while perf_counter() < start + seconds:
            step()
            runs += 1
        duration, cpu = perf_counter() - start, process_time() - used
    rows = runs * _ENGINE_BATCH
    return Load(rows / duration, cpu / rows)


def streams(bench: Bench) -> list[Table]:
    """Compare events over WebSocket connections with requests of one event each."""
    title = f"WebSocket, beside HTTP requests with one event over {_BUSY} connections"
    runs: dict[str, Run] = {HTTP: bench.events(OURS, _BUSY)}
    for connections, in_flight in _STREAMS:
        messages = stream_events(bench.model, connections)
        run = partial(stream, bench.servers[OURS], STREAM, messages, in_flight, bench.sizes.seconds)
        runs[f"{_connections(connections)}, {in_flight} in flight"] = run
    try:
        loads = bench.in_turn(runs)
    except NotThereError as error:
        return [Table(title, [], [str(error)])]
    http = loads.pop(HTTP)
    shown = (EVENTS, CPU, SERVER, CLIENT)
    rows = [row(name, loads[name], shown, to=(HTTP, http), compared=(EVENTS, CPU)) for name in loads]
    return [Table(title, [*rows, row(HTTP, http, shown)], [_bottleneck(name, loads[name]) for name in loads])]


def _bottleneck(name: str, loads: Sequence[Load]) -> str:
    """Say which side limits the rate; if it is the client, compare CPU times instead."""
    busier = max((SERVER, CLIENT), key=lambda side: side.middle(loads))
    return f"{name}: the busier side was the {busier.name}"


def open_loops(bench: Bench) -> list[Table]:
    """Compare latencies at fixed arrival rates: at shares of the naive server's best rate, and of ours."""
    saturated = bench.in_turn({name: bench.events(name, _BUSY) for name in (OURS, NAIVE)})
    limits = {name: REQUESTS.middle(loads) for name, loads in saturated.items()}
    requests = single_events(bench.model, _MANY)
    trials = [
        _Trial(*names, share, share * limits[names[1]])
        for share in bench.sizes.shares
        for names in ((NAIVE, NAIVE), (OURS, NAIVE), (OURS, OURS))
    ]
    seconds = bench.sizes.seconds
    loads = bench.in_turn({t: partial(open_loop, bench.servers[t.name], requests, t.rate, seconds) for t in trials})
    theirs = {trial.share: loads[trial] for trial in trials if trial.name == NAIVE}
    rows = [_latencies(trial, loads[trial], theirs[trial.share]) for trial in trials]
    return [Table("Open loop, Poisson arrivals, latency from when a request was due", rows)]


@dataclass(frozen=True)
class _Trial:
    """An open loop: a server at a share of the best rate of one of the servers, `limit`."""

    name: str
    limit: str
    share: float
    rate: float


def _latencies(trial: _Trial, loads: Sequence[Load], theirs: Sequence[Load]) -> Row:
    latencies = (P50, P99, P999)
    to = None if trial.name == NAIVE else (NAIVE, theirs)
    name = f"{trial.name} at {trial.share:.0%} of {trial.limit}"
    measured = row(name, loads, (REQUESTS, *latencies, CLIENT), to=to, compared=latencies)
    return replace(measured, figures={"offered /s": trial.rate} | measured.figures)


def healthz(bench: Bench) -> list[Table]:
    """Compare how long /healthz takes while the server is saturated."""
    loads = bench.in_turn({name: partial(_probe, bench, name) for name in bench.servers})
    rows = [compared(quantity.name, loads, quantity) for quantity in (P50, P99)]
    return [Table(f"/healthz while {_BUSY} connections send events", rows)]


def _probe(bench: Bench, name: str) -> Load:
    """Ask for /healthz while a closed loop saturates the server."""
    with ThreadPoolExecutor(1) as pool:
        saturating = pool.submit(bench.events(name, _BUSY))
        sleep(_LEAD)
        seconds = max(_LEAD, bench.sizes.seconds - 2 * _LEAD)
        load = open_loop(bench.servers[name], [get("/healthz")], _PROBES, seconds, most_connections=_PROBE_CONNECTIONS)
        saturating.result()
    return load


PARTS: dict[Part, Callable[[Bench], list[Table]]] = {
    "requests": requests,
    "bulk": bulk,
    "stream": streams,
    "open-loop": open_loops,
    "healthz": healthz,
}


if __name__ == "__main__":
    console.run(app)
