"""The application in the test's own process, with the engine and the clock in the test's hands."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from arraylstm_serve.application import Application
from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Step
from arraylstm_serve.engine.gpu.engine import DeviceEngine, cuda_place
from arraylstm_serve.engine.gpu.memory import Place
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.ranking import NOTHING
from arraylstm_serve.engine.step_graph import open_graph
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.server.process import Server, configure, listen
from arraylstm_serve.sessions.model import slot_count
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.settings import Settings

from ..devices import Chosen
from ..waiting import until_soon


class Hooks:
    """What a test may do to an engine.

    Attributes:
        before: called with the items before each step; it may look, act or raise.
        poison: the id of an item for which the model gives logits that are not finite.
    """

    def __init__(self) -> None:
        self.before: Callable[[Integers], None] = lambda items: None
        self.poison: int | None = None


class OnHost(Hooks, HostEngine):
    """The host's engine, with hooks."""

    def __init__(self, bundle: Bundle, slots: int) -> None:
        Hooks.__init__(self)
        graph = open_graph(bundle, 1)
        HostEngine.__init__(
            self, graph, slots, bundle.manifest.states, len(bundle.vocabulary), bundle.vocabulary.unknown
        )
        run = graph.run

        def poisoned(items: Integers, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
            logits, next_states = run(items, states)
            logits[items == self.poison] = np.nan
            return logits, next_states

        graph.run = poisoned  # type: ignore[method-assign]

    def step(self, sources: Integers, targets: Integers, items: Integers, depths: Sequence[int]) -> Step:
        """Step, after the hook."""
        self.before(items)
        return super().step(sources, targets, items, depths)


class OnDevice(Hooks, DeviceEngine):
    """The device's engine, with hooks. Poisoned rows are left out of its batches: a test cannot change its logits."""

    def __init__(self, bundle: Bundle, slots: int, max_batch: int) -> None:
        Hooks.__init__(self)
        place = Place("cpu", "CPU", {}) if Chosen.device == "cpu" else cuda_place(Settings())
        DeviceEngine.__init__(self, bundle, place, slots, max_batch)

    def step(self, sources: Integers, targets: Integers, items: Integers, depths: Sequence[int]) -> Step:
        """Step, after the hook."""
        self.before(items)
        finite = items != self.poison
        if finite.all():
            return super().step(sources, targets, items, depths)
        kept = super().step(
            sources[finite],
            targets[finite],
            items[finite],
            [depth for depth, fine in zip(depths, finite, strict=True) if fine],
        )
        rankings = iter(kept.rankings)
        step = Step(
            np.zeros(len(items)),
            np.zeros(len(items), int),
            finite,
            [next(rankings) if fine else NOTHING for fine in finite],
        )
        step.probabilities[finite], step.ranks[finite], step.finite[finite] = kept[:3]
        return step


def make_engine(bundle: Bundle, slots: int, max_batch: int = 64) -> OnHost | OnDevice:
    """Return the engine that the suite is to test."""
    return OnHost(bundle, slots) if Chosen.engine == "host" else OnDevice(bundle, slots, max_batch)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.now


class Harness:
    """An application, a client for it, and the engine and clock that a test may control."""

    def __init__(self, bundle_path: Path, **settings: Any) -> None:
        bundle = Bundle.load(bundle_path)
        chosen = Settings(**{"max_sessions": 100, **settings})
        self.engine = make_engine(bundle, slot_count(chosen), chosen.max_batch)
        self.clock = Clock()
        self.keys = Keys.load(chosen.api_keys)
        self.service = Service(bundle, self.engine, chosen, self.clock)
        self.app = Application(self.service, self.keys)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def send(self, session_id: str, *items: Any, key: str | None = None, **fields: Any) -> httpx.Response:
        """POST items to a session."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"items": list(items), **fields}
        return await self.client.post(f"/v1/sessions/{session_id}/events", json=body, headers=headers)

    async def in_order(self, *requests: Coroutine[Any, Any, httpx.Response]) -> list[httpx.Response]:
        """Send requests at once, each queued before the next; the first must take longer than the others to come."""
        tasks: list[asyncio.Task[httpx.Response]] = []
        for request in requests:
            tasks.append(asyncio.create_task(request))
            while self.service.pending < len(tasks):
                assert not tasks[0].done(), "the first request is over already"
                await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    async def settle(self) -> None:
        """Let the loop run until nothing is pending."""
        await until_soon(lambda: not self.service.pending)


def predictions(answer: dict[str, Any]) -> list[tuple[Any, float]]:
    """Return an answer's predictions as pairs of item and probability."""
    return [(entry["item"], entry["probability"]) for entry in answer["predictions"]]


def observed(answer: dict[str, Any]) -> list[tuple[float | None, int | None]]:
    """Return an answer's observations as pairs of probability and rank."""
    return [(entry["probability"], entry["rank"]) for entry in answer["observed"]]


class _Listener(Server):
    """A server that says when it is up."""

    def __init__(self, service: Service, keys: Keys | None) -> None:
        super().__init__(configure(service, keys), service, "", [])
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then set `up`."""
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def listening(harness: Harness) -> AsyncIterator[str]:
    """Serve the harness's service on a real port, in the test's own loop; yield `host:port`."""
    listener = listen("127.0.0.1", 0)
    server = _Listener(harness.service, harness.keys)
    serving = asyncio.create_task(server.serve([listener]))
    await server.up.wait()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
