"""Compare arraylstm-serve with general model servers that run the same graph.

    python benchmarks/peers.py --install             # each server into its own folder, then about a minute each
    python benchmarks/peers.py --only "Ray Serve"   # one of them, once it is installed

Every server keeps its sessions' state in a dict of its one worker, batches if it can, and has all its processes on one
core. Ours is measured before and after each. A server that cannot be installed or started is named in one line.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
from bundles import Served, served
from comparing import CPU, P99, REQUESTS, Run, in_turn
from cyclopts import App, Parameter
from events import SESSION, Event, requests, single_events
from load import Load, LoadError, closed_loop, post
from report import Row, Table, output, show, write_json
from servers import APPS, Server, ServerError, free_port, on_core, ours
from timing import TimingOptions, single_thread

from arraylstm import console

app = App(name="peers", help=__doc__, result_action="return_value")

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy")
_INSTALLING = 900  # seconds
_STARTING = 120.0
_TRIED = (3, 14, 159)  # items of a session for which all servers must give the same answers


class PeerError(Exception):
    """A peer could not be installed, or its answers are not the model's."""


@dataclass(frozen=True)
class Peer:
    """A server to compare ours with.

    Attributes:
        name: its name.
        app: the program in `apps` that starts it, given the step graph and a port.
        requirements: the packages that it needs besides onnxruntime.
        path: the path that takes events.
        ready: a path that it answers 200 once it is ready.
        document: the JSON that it takes for an event.
        items: the most likely items in the JSON that it answers.
    """

    name: str
    app: str
    requirements: tuple[str, ...]
    path: str
    ready: str
    document: Callable[[Event], Any] = lambda event: event
    items: Callable[[Any], list[int]] = lambda answer: [entry["item"] for entry in answer["predictions"]]

    def request(self, event: Event) -> bytes:
        """Return a whole request for an event."""
        return post(self.path, self.document(event))


def _tensors(event: Event) -> dict[str, Any]:
    """Return an event as a request of the Open Inference Protocol."""
    session_id = {"name": "session_id", "datatype": "BYTES", "shape": [1, 1], "data": [event["session_id"]]}
    return {"inputs": [session_id, {"name": "item", "datatype": "INT64", "shape": [1, 1], "data": event["items"]}]}


def _first_output(answer: Any) -> list[int]:
    return answer["outputs"][0]["data"]  # type: ignore[no-any-return]


PEERS = (
    Peer("LitServe", "lit_serve.py", ("litserve==0.2.19",), "/predict", "/health"),
    Peer(
        "BentoML",
        "bento_ml.py",
        ("bentoml==1.4.40",),
        "/advance",
        "/readyz",
        lambda event: {"events": [event]},
        lambda answer: [entry["item"] for entry in answer[0]["predictions"]],
    ),
    Peer("Ray Serve", "ray_serve.py", ("ray[serve]==2.60.0",), "/", "/-/healthz"),
    Peer(
        "MLServer",
        "ml_server.py",
        ("mlserver==1.7.1",),
        "/v2/models/step/infer",
        "/v2/models/step/ready",
        _tensors,
        _first_output,
    ),
    Peer(
        "TorchServe",
        "torch_serve.py",
        ("torchserve==0.12.0", "torch==2.13.0", "PyYAML==6.0.3"),
        "/predictions/step",
        "/ping",
    ),
    Peer(
        "nvidia-pytriton",
        "py_triton.py",
        ("nvidia-pytriton==0.7.0",),
        "/v2/models/step/infer",
        "/v2/models/step/ready",
        _tensors,
        _first_output,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, and where."""

    only: Annotated[tuple[str, ...], Parameter(help=f"Servers to measure: {', '.join(p.name for p in PEERS)}.")] = ()
    install: Annotated[bool, Parameter(negative=())] = False
    """Install the missing servers with pip."""
    python: Path = Path(sys.executable)
    """Interpreter that their environments are made with; nvidia-pytriton 0.7 does not start on Python 3.11.7."""
    folder: Path = Path(".venv-peers")
    """Folder of their environments."""
    connections: int = 64
    """Connections that send one event a request."""
    seconds: float = 3.0
    """Length of each run; wrk's are whole seconds."""
    bundle: Annotated[Path | None, Parameter(help="Bundle to serve [default: array, V=1000, H=128, k=4, E=64].")] = None
    server_core: int = 0
    """Core of the servers; only one server works at a time."""
    client_core: int = 1
    """Core of the load."""

    def __post_init__(self) -> None:
        """Refuse a server that is not known."""
        if unknown := set(self.only) - {peer.name for peer in PEERS}:
            raise ValueError(f"unknown: {', '.join(unknown)}; known are {', '.join(peer.name for peer in PEERS)}")


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(),
) -> int:
    """Measure throughput, latency and CPU time of each server."""
    single_thread()
    out = output()
    table = Table(f"One event a request, {sizes.connections} connections: ours over theirs", [])
    with ExitStack() as stack:
        model = stack.enter_context(served(sizes.bundle))
        stack.enter_context(on_core(sizes.client_core))
        us = stack.enter_context(ours(model.bundle, sizes.server_core))
        for peer in PEERS:
            if not sizes.only or peer.name in sizes.only:
                out.print(f"{peer.name} ...")
                try:
                    table.rows.append(compare(peer, us, model, sizes, timing.rounds))
                except (PeerError, ServerError, LoadError) as error:
                    table.notes.append(str(error))
    show(table, out)
    if timing.json is not None:
        settings = asdict(sizes) | {"rounds": timing.rounds, "peers": {peer.name: peer.requirements for peer in PEERS}}
        write_json(timing.json, settings, PACKAGES, [table])
    return 0


def compare(peer: Peer, us: Server, model: Served, sizes: Sizes, rounds: int) -> Row:
    """Measure a peer, and ours before and after it, never at once: its idle processes would take time from ours."""
    python = environment(peer, sizes)
    run = partial(closed_loop, connections=sizes.connections, seconds=sizes.seconds, core=sizes.client_core)
    our_run: Run = partial(run, us, single_events(model, sizes.connections))
    before = _rounds(our_run, rounds)
    with start(peer, python, model, sizes.server_core) as them:
        require_same(us, them, peer)
        their_run: Run = partial(run, them, requests(model, sizes.connections, peer.request))
        their_run()  # this begins the sessions
        theirs = _rounds(their_run, rounds)
    return _row(peer, [*before, *_rounds(our_run, rounds)], theirs)


def _rounds(run: Run, rounds: int) -> list[Load]:
    return in_turn({None: run}, rounds)[None]


def _row(peer: Peer, loads: list[Load], theirs: list[Load]) -> Row:
    quantities = (REQUESTS, CPU, P99)
    sides = {"ours": loads, "theirs": theirs}
    figures = {f"{side} {q.name} {q.unit}": q.figure(of) for q in quantities for side, of in sides.items()}
    return Row(peer.name, {q.name: q.middle(loads) / q.middle(theirs) for q in quantities}, figures)


# -- their environments and processes -----------------------------------------------------------------------------


def environment(peer: Peer, sizes: Sizes) -> Path:
    """Return the interpreter that has the peer installed; install it if asked to.

    Raises:
        PeerError: it is not installed, or pip could not install it.
    """
    folder = sizes.folder.resolve() / Path(peer.app).stem
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    if not sizes.install:
        raise PeerError(f"{peer.name} is not installed; --install does it")
    _run(peer, [sizes.python, "-m", "venv", "--clear", folder])
    runtime = f"onnxruntime=={onnxruntime.__version__}"  # on the CPU, whichever distribution is here
    _run(peer, [python, "-m", "pip", "install", "--quiet", *peer.requirements, runtime])
    done.touch()
    return python


def _run(peer: Peer, command: list[str | Path]) -> None:
    """Run a step of an installation."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALLING)
    except subprocess.TimeoutExpired:
        raise PeerError(f"{peer.name}: its installation took longer than {_INSTALLING} seconds") from None
    if done.returncode:
        raise PeerError(f"{peer.name} could not be installed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def start(peer: Peer, python: Path, model: Served, core: int) -> Server:
    """Return the peer with a model's step graph."""
    port = free_port()
    command: list[str | Path] = [python, APPS / peer.app, model.step_graph, str(port)]
    path = {"PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(APPS)}
    return Server(peer.name, command, port, core, ready=peer.ready, environment=path, patience=_STARTING)


def require_same(us: Server, them: Server, peer: Peer) -> None:
    """Walk one session on both servers; raise PeerError unless both end with the same most likely items."""
    session_id = Path(peer.app).stem  # a new session for both
    for item in _TRIED:
        event = {"session_id": session_id, "items": [item]}
        ours_said = _answer(us, SESSION.format(session_id), {"items": [item]})
        theirs_said = _answer(them, peer.path, peer.document(event))
    expected, actual = [entry["item"] for entry in ours_said["predictions"]], peer.items(theirs_said)
    if expected != actual:
        raise PeerError(f"{peer.name} predicts {actual}; the model says {expected}")


def _answer(server: Server, path: str, document: Any) -> Any:
    try:
        status, body = server.request("POST", path, json.dumps(document).encode())
    except (OSError, HTTPException) as error:
        raise PeerError(f"{server.name} does not answer an event: {error}") from error
    if status != 200:
        raise PeerError(f"{server.name} answered {status}: {body[:200].decode(errors='replace')}")
    return json.loads(body)


if __name__ == "__main__":
    console.run(app)
