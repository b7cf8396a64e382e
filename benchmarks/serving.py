"""How fast arraylstm-serve answers, beside raw ASGI without inference and beside the server that most people write.

    python benchmarks/serving.py                            # about eight minutes
    python benchmarks/serving.py --parts requests bulk      # a part of it

The servers run on one core and the load comes from another, all in every round, so what disturbs one disturbs all.
Of each ratio, and of each figure, the median round is shown. It needs wrk and two cores that have nothing else to do.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from math import isnan
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Annotated, Literal

import numpy as np
from apps.stepping import load, zero_states
from bundles import Served, served
from comparing import MS, US, Key, Run, compare, in_turn, middle, ratio, values
from cyclopts import App, Parameter
from events import BULK, STREAM, bulk_events, single_events, stream_events
from load import Load, LoadError, NotThereError, closed_loop, get, open_loop, stream
from report import Row, Table, output, show, write_json
from servers import Server, ServerError, floor, naive, on_core, ours
from timing import TimingOptions, single_thread

from arraylstm import console

app = App(name="serving", help=__doc__, result_action="return_value")

OURS, RAW, NAIVE, ENGINE = "ours", "raw", "naive", "engine"
FAILED, NOT_FOUND = 1, 404
PACKAGES = ("onnxruntime", "uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "picows", "numpy")

_BUSY = 64  # connections that saturate a server
_MANY = 256  # connections, more than do a server good
_BULK_CONNECTIONS = 4
_STREAMS = ((64, 1), (16, 16))  # connections, messages in flight on each
_ENGINE_BATCH = 64
_PROBES = 100.0  # of /healthz, a second
_LEAD = 0.3  # seconds that the saturating load has to itself, before them and after
_STREAMED = {"events": "rate", "CPU": "cpu"}

Part = Literal["requests", "bulk", "stream", "open-loop", "healthz"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is run."""

    parts: tuple[Part, ...] = ("requests", "bulk", "stream", "open-loop", "healthz")
    """What is measured."""
    connections: tuple[int, ...] = (1, 16, 64, 256)
    """Connections that send one event a request."""
    bulk: tuple[int, ...] = (100, 1000)
    """Events of a bulk request."""
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Arrival rates of the open loop, as shares of what a server answers under 64 connections."""
    seconds: float = 3.0
    """Length of each run; wrk's are whole seconds."""
    bundle: Annotated[Path | None, Parameter(help="Bundle to serve [default: array, V=1000, H=128, k=4, E=64].")] = None
    server_core: int = 0
    """Core of the servers, one of which works at a time."""
    client_core: int = 1
    """Core of the load."""


@dataclass(frozen=True)
class Bench:
    """What the parts share: running servers, the model they serve, and how they are measured."""

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
        """Let every server begin its sessions, whose memory is new to it."""
        for name in self.servers:
            self.events(name, _MANY)()

    def in_turn(self, runs: Mapping[Key, Run]) -> dict[Key, list[Load]]:
        """Return what comes of every run, round by round."""
        return in_turn(runs, self.rounds)


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(rounds=3),
) -> int:
    """Measure requests, bulk, streams, open loops and /healthz. Exit status: 1 if a server did not do its part."""
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
    connections = bench.sizes.connections
    loads = bench.in_turn({(name, count): bench.events(name, count) for count in connections for name in bench.servers})

    def table(what: str, field: str, unit: str, scale: float = 1.0) -> Table:
        rows = {
            _connections(count): {name: values(loads[name, count], field) for name in bench.servers}
            for count in connections
        }
        return compare(f"Requests with one event: {what}", rows, unit, scale)

    tables = [
        table("throughput", "rate", "req/s"),
        table("p99", "p99", "ms", MS),
        table("server CPU a request", "cpu", "µs", US),
    ]
    if {_MANY, _BUSY} <= set(connections):
        rates = {name: [values(loads[name, count], "rate") for count in (_MANY, _BUSY)] for name in bench.servers}
        rows = [Row(name, {f"{_MANY} / {_BUSY}": ratio(*pair)}) for name, pair in rates.items()]
        tables.append(Table(f"Requests with one event: throughput at {_MANY} connections over that at {_BUSY}", rows))
    return tables


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def bulk(bench: Bench) -> list[Table]:
    """Compare events of bulk requests with the steps of the graph alone."""
    title = f"Bulk requests, {_BULK_CONNECTIONS} connections, beside the step graph alone at B={_ENGINE_BATCH}"
    if bench.servers[OURS].request("POST", BULK, b"{}")[0] == NOT_FOUND:
        return [Table(title, [], [f"POST {BULK}: not there"])]
    requests = {size: bulk_events(bench.model, size) for size in bench.sizes.bulk}
    runs: dict[str | int, Run] = {ENGINE: partial(engine, bench.model, bench.sizes.server_core, bench.sizes.seconds)}
    loads = bench.in_turn(runs | {n: bench.closed(OURS, each, _BULK_CONNECTIONS) for n, each in requests.items()})
    rows = [_bulk_row(size, loads[size], loads[ENGINE]) for size in requests]
    alone = {"events/s": middle(loads[ENGINE], "rate"), "CPU µs": middle(loads[ENGINE], "cpu") * US}
    return [Table(title, [*rows, Row("the graph alone", {}, alone)])]


def _bulk_row(size: int, loads: Sequence[Load], alone: Sequence[Load]) -> Row:
    rates, costs = (
        [scale * value for value in values(loads, field)] for field, scale in (("rate", size), ("cpu", 1 / size))
    )
    ratios = {"events / steps": ratio(rates, values(alone, "rate")), "CPU / CPU": ratio(costs, values(alone, "cpu"))}
    figures = {"events/s": median(rates), "CPU µs": median(costs) * US}
    return Row(f"{size} events", ratios, figures | {f"{name} ms": middle(loads, name) * MS for name in ("p50", "p99")})


def engine(model: Served, core: int, seconds: float) -> Load:
    """Run the step graph alone on the servers' core, as they load it; a row counts as an answer."""
    graph = load(str(model.step_graph))
    feeds = zero_states(graph, _ENGINE_BATCH) | {"items": np.arange(_ENGINE_BATCH) % model.num_items}
    with on_core(core):
        graph.run(None, feeds)
        start, used, runs = perf_counter(), process_time(), 0
        while perf_counter() < start + seconds:
            graph.run(None, feeds)
            runs += 1
        duration, cpu = perf_counter() - start, process_time() - used
    steps = runs * _ENGINE_BATCH
    return Load(steps / duration, cpu / steps)


def streams(bench: Bench) -> list[Table]:
    """Compare events over WebSocket connections with requests of one event each."""
    title = "WebSocket, beside HTTP requests with one event"
    server, seconds = bench.servers[OURS], bench.sizes.seconds
    (over_http, *over_ws) = f"HTTP, {_BUSY} connections", *(f"{n} connections, {k} in flight" for n, k in _STREAMS)
    runs: dict[str, Run] = {over_http: bench.events(OURS, _BUSY)}
    for name, (connections, in_flight) in zip(over_ws, _STREAMS, strict=True):
        messages = stream_events(bench.model, connections)
        runs[name] = partial(stream, server, STREAM, messages, in_flight, seconds)
    try:
        loads = bench.in_turn(runs)
    except NotThereError as error:
        return [Table(title, [], [str(error)])]
    rows = [_stream_row(name, loads[name], loads[over_http]) for name in runs]
    return [
        Table(
            title,
            [*rows[1:], Row(rows[0].name, {}, rows[0].figures)],
            [_bottleneck(name, loads[name]) for name in over_ws],
        )
    ]


def _stream_row(name: str, loads: Sequence[Load], http: Sequence[Load]) -> Row:
    ratios = {
        f"{column} / HTTP": ratio(values(loads, field), values(http, field)) for column, field in _STREAMED.items()
    }
    shares = {f"{side} busy": middle(loads, side) for side in ("server", "client")}
    figures = {"events/s": middle(loads, "rate"), "CPU µs": middle(loads, "cpu") * US}
    return Row(name, ratios, figures | {column: share for column, share in shares.items() if not isnan(share)})


def _bottleneck(name: str, loads: Sequence[Load]) -> str:
    """Tell which side bounds the rate; where it is the client, CPU times are what to compare by."""
    busier = max(("server", "client"), key=lambda side: middle(loads, side))
    return f"{name}: the busier side was the {busier}"


def open_loops(bench: Bench) -> list[Table]:
    """Compare latencies at fixed arrival rates: at the naive server's, and at as large a share of what each can do."""
    saturated = {name: bench.events(name, _BUSY)().rate for name in (OURS, NAIVE)}
    requests = single_events(bench.model, _MANY)
    runs: dict[str, Run] = {}
    references: dict[str, str] = {}
    for share in bench.sizes.shares:
        theirs, same, own = (f"{text} {share:.0%} of its own" for text in (NAIVE, f"{OURS} at {NAIVE}'s", OURS))
        for row, name, limit in ((theirs, NAIVE, NAIVE), (same, OURS, NAIVE), (own, OURS, OURS)):
            rate = share * saturated[limit]
            runs[row] = partial(open_loop, bench.servers[name], requests, rate, bench.sizes.seconds)
        references |= {same: theirs, own: theirs}
    loads = bench.in_turn(runs)
    rows = [_latency_row(name, loads[name], loads.get(references.get(name, ""))) for name in runs]
    return [Table("Open loop, Poisson arrivals, latency from when a request was due", rows)]


def _latency_row(name: str, loads: Sequence[Load], theirs: Sequence[Load] | None) -> Row:
    columns = {"p50": "p50", "p99": "p99", "p99.9": "p999"}
    ratios = {
        f"{column} / {NAIVE}": ratio(values(loads, field), values(theirs, field))
        for column, field in columns.items()
        if theirs is not None
    }
    figures = {f"{column} ms": middle(loads, field) * MS for column, field in columns.items()}
    return Row(name, ratios, {"req/s": middle(loads, "rate")} | figures | {"client busy": middle(loads, "client")})


def healthz(bench: Bench) -> list[Table]:
    """Compare how long /healthz takes while the server is saturated."""
    loads = bench.in_turn({name: partial(_probe, bench, name) for name in bench.servers})
    rows = {"p50": {n: values(loads[n], "p50") for n in loads}, "p99": {n: values(loads[n], "p99") for n in loads}}
    return [compare(f"/healthz while {_BUSY} connections send events", rows, "ms", MS)]


def _probe(bench: Bench, name: str) -> Load:
    """Ask for /healthz all through a closed loop that saturates the server."""
    with ThreadPoolExecutor(1) as pool:
        saturating = pool.submit(bench.events(name, _BUSY))
        sleep(_LEAD)
        load = open_loop(bench.servers[name], [get("/healthz")], _PROBES, max(_LEAD, bench.sizes.seconds - 2 * _LEAD))
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
