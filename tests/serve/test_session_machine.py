"""A random life of the session table, held against a plain model of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from .bundles import LABELS, expected_observed, expected_predictions, index_of, write_bundle
from .harness import Harness, observed, predictions
from .test_events import near

MAX_SESSIONS, TTL = 3, 100
names = st.sampled_from(["s0", "s1", "s2", "s3", "s4"])
histories = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4)


@dataclass
class Life:
    """What should be known of a session."""

    items: list[Any]
    used: float
    answers: dict[str, tuple[Any, bytes]] = field(default_factory=dict)


class SessionMachine(RuleBasedStateMachine):
    """Events, retries, faults, looks, removals, evictions and expiry in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        path = write_bundle(Path(self.folder.name) / "bundle")
        self.harness = Harness(path, max_sessions=MAX_SESSIONS, session_ttl=TTL, max_batch=2)
        self.slots = self.harness.service.arena.free
        self.lives: OrderedDict[str, Life] = OrderedDict()

    def teardown(self) -> None:
        """Give everything back."""
        self.loop.run_until_complete(self.harness.client.aclose())
        self.loop.close()
        self.folder.cleanup()

    def send(self, name: str, *items: Any, **fields: Any) -> httpx.Response:
        """Post one event."""
        return self.loop.run_until_complete(self.harness.send(name, *items, **fields))

    def use(self, name: str) -> None:
        """Note that a session's turn has come."""
        if name in self.lives:
            self.lives[name].used = self.harness.clock.now
            self.lives.move_to_end(name)

    def apply(self, name: str, items: list[Any], response: httpx.Response) -> Life:
        """Hold an applied event against the model."""
        answer = response.json()
        assert response.status_code == 200, answer
        assert answer["state"] == ("continued" if name in self.lives else "new")
        life = self.extend(name, items)
        assert answer["step"] == len(life.items)
        assert predictions(answer) == near(expected_predictions(life.items))
        assert observed(answer) == near(expected_observed(life.items, len(items)))
        return life

    def extend(self, name: str, items: list[Any]) -> Life:
        """Let a session of the model consume items."""
        if name not in self.lives and len(self.lives) == MAX_SESSIONS:
            self.lives.popitem(last=False)
        life = self.lives.setdefault(name, Life([], 0))
        life.items += items
        self.use(name)
        return life

    @rule(name=names, items=histories)
    def event(self, name: str, items: list[Any]) -> None:
        """An event is applied as the model says."""
        self.apply(name, items, self.send(name, *items))

    @rule(name=names, items=histories, key=st.sampled_from(["k0", "k1", "k2"]))
    def keyed_event(self, name: str, items: list[Any], key: str) -> None:
        """An event under a key is applied once, answered again, and refused for another body."""
        known = self.lives[name].answers.get(key) if name in self.lives else None
        response = self.send(name, *items, key=key)
        if known is None:
            self.apply(name, items, response).answers[key] = (items, response.content)
        elif known[0] == items and [type(item) for item in known[0]] == [type(item) for item in items]:
            assert response.content == known[1]
        else:
            assert response.json()["code"] == "idempotency_key_reused"
        self.use(name)

    @rule(name=names, items=histories, step=st.integers(0, 6))
    def expected_event(self, name: str, items: list[Any], step: int) -> None:
        """An event expected at a step is applied there and refused elsewhere."""
        held = name in self.lives
        stands = len(self.lives[name].items) if held else 0
        response = self.send(name, *items, expected_step=step)
        if step == stands:
            self.apply(name, items, response)
        else:
            assert response.json()["code"] == ("step_conflict" if held else "session_gone")
            assert response.json().get("step") == (stands if held else None)
        self.use(name)

    @rule(name=names, items=histories)
    def bad_item(self, name: str, items: list[Any]) -> None:
        """An unknown item refuses the whole request."""
        assert self.send(name, *items, "zebra").json()["code"] == "unknown_item"

    @rule(name=names, items=histories, at=st.integers(0, 3))
    def failing_event(self, name: str, items: list[Any], at: int) -> None:
        """A run that fails amid a request leaves the session as it was."""
        with self.failing(at % len(items)):
            assert self.send(name, *items).json()["code"] == "internal"
        self.use(name)

    @contextmanager
    def failing(self, at: int) -> Iterator[None]:
        """Let the run fail before which there were so many."""
        runs = count()

        def fail(_: object) -> None:
            if next(runs) == at:
                raise RuntimeError("engine on fire")

        self.harness.engine.before = fail
        yield
        self.harness.engine.before = lambda _: None

    @rule(name=names, items=histories, start=st.booleans(), at=st.none() | st.integers(0, 3))
    def sequence(self, name: str, items: list[Any], start: bool, at: int | None) -> None:
        """A start begins anew, a step goes on where there is something held, and a failure of either does nothing."""
        tensor = {"name": "items", "shape": [len(items)], "datatype": "INT64", "data": list(map(index_of, items))}
        body = {
            "inputs": [tensor],
            "outputs": [{"name": "step"}, {"name": "probabilities"}],
            "parameters": {"sequence_id": name, "sequence_start": start},
        }
        with nullcontext() if at is None else self.failing(at % len(items)):
            request = self.harness.client.post("/v2/models/arraylstm/infer", json=body)
            response = self.loop.run_until_complete(request)
        if not start and name not in self.lives:
            assert response.status_code == 400
        elif at is not None:
            assert response.status_code == 500
            self.use(name)
        else:
            if start and name in self.lives:
                self.lives[name].items.clear()
            life = self.extend(name, items)
            step, chances = response.json()["outputs"]
            assert step["data"] == [len(life.items)]
            expected = [chance for _, chance in expected_predictions(life.items)]
            assert chances["data"] == pytest.approx(expected, abs=1e-5)

    @rule(name=names, chunks=st.lists(histories, min_size=2, max_size=5))
    def burst(self, name: str, chunks: list[list[Any]]) -> None:
        """Events sent to one session at once are applied in their order."""

        async def send_all() -> list[httpx.Response]:
            return list(await asyncio.gather(*(self.harness.send(name, *chunk) for chunk in chunks)))

        for chunk, response in zip(chunks, self.loop.run_until_complete(send_all()), strict=True):
            self.apply(name, chunk, response)

    @rule(name=names)
    def peek(self, name: str) -> None:
        """A look answers where the session stands, or that it is unknown."""
        request = self.harness.client.get(f"/v1/sessions/{name}/predictions")
        response = self.loop.run_until_complete(request)
        if name in self.lives:
            assert predictions(response.json()) == near(expected_predictions(self.lives[name].items))
        else:
            assert response.json()["code"] == "unknown_session"
        self.use(name)

    @rule(name=names)
    def remove(self, name: str) -> None:
        """A removal forgets a session that is held."""
        response = self.loop.run_until_complete(self.harness.client.delete(f"/v1/sessions/{name}"))
        assert response.status_code == (204 if self.lives.pop(name, None) else 404)

    @rule(seconds=st.sampled_from([1, 60, TTL - 1, TTL]))
    def wait(self, seconds: int) -> None:
        """Time passes, and sessions unused for their time expire."""
        self.harness.clock.now += seconds
        for name, life in list(self.lives.items()):
            if self.harness.clock.now - life.used >= TTL:
                del self.lives[name]

    @invariant()
    def sessions_are_those_of_the_model(self) -> None:
        """Exactly the expected sessions are held, with their steps and answers, and every other slot is free."""
        service = self.harness.service
        for name in ("s0", "s1", "s2", "s3", "s4"):
            response = self.loop.run_until_complete(self.harness.client.get(f"/v1/sessions/{name}"))
            step = response.json()["step"] if response.status_code == 200 else None
            assert step == (len(self.lives[name].items) if name in self.lives else None)
        assert service.arena.free == self.slots - len(self.lives)
        assert service.pending == 0
        answers = [answer for life in self.lives.values() for _, answer in life.answers.values()]
        assert service.sessions.answer_bytes == sum(map(len, answers))


TestSessionMachine = pytest.mark.filterwarnings("error")(SessionMachine.TestCase)
TestSessionMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
