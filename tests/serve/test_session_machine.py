"""Random requests to sessions, checked against a plain model of them; every answer must have the same bits."""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Shelf
from hypothesis.stateful import RuleBasedStateMachine, invariant, multiple, rule

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.sessions.session import ANSWER_OVERHEAD, RECENT

from ..devices import Chosen
from .alone import Alone, same, same_likely
from .bundles import LABELS, V, index_of, write_bundle
from .harness import Harness, observed, predictions

MAX_SESSIONS, TTL = 3, 100
NAMES = [f"s{number}" for number in range(5)]
names = st.sampled_from(NAMES)
keys = st.sampled_from(["k0", "k1", "k2"])
histories = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4)
LATE: ContextVar[bool] = ContextVar("LATE", default=False)

Answers = dict[str, tuple[Any, bytes]]


@dataclass
class Life:
    """What the server should know of a session."""

    items: list[Any]
    used: float
    answers: Answers = field(default_factory=dict)
    restored: bool = False


@dataclass
class Saved:
    """A state file, and the items that should be in it."""

    body: bytes
    items: list[Any]


def asked(items: list[Any], **fields: Any) -> Any:
    """Return what a request asks for, as JSON, so that 5 is not "5"."""
    return json.dumps([items, fields])


def with_key(key: str | None) -> dict[str, str]:
    """Return the header that carries a key."""
    return {} if key is None else {"Idempotency-Key": key}


class SessionMachine(RuleBasedStateMachine):
    """Everything that can happen to a session, in any order."""

    files = Shelf("files")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("arraylstm_serve.http.request.perf_counter", lambda: perf_counter() - 1e6 * LATE.get())
        path = write_bundle(Path(self.folder.name) / "bundle")
        self.harness = Harness(path, max_sessions=MAX_SESSIONS, session_ttl=TTL, max_batch=2)
        self.alone = Alone(Bundle.load(path))
        self.slots = self.harness.service.model.slots.free
        self.lives: OrderedDict[str, Life] = OrderedDict()
        self.ended: OrderedDict[str, tuple[Answers, float]] = OrderedDict()

    def teardown(self) -> None:
        """Release what the machine holds."""
        self.patch.undo()
        self.loop.run_until_complete(self.harness.client.aclose())
        self.loop.close()
        self.folder.cleanup()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, and return the response."""
        return self.loop.run_until_complete(self.harness.client.request(method, f"/v1/{path}", **options))

    def send(self, name: str, *items: Any, **fields: Any) -> httpx.Response:
        """Post one event."""
        return self.loop.run_until_complete(self.harness.send(name, *items, top_k=V, **fields))

    def use(self, name: str) -> None:
        """Note that a session was used: by an applied event, a repeated answer or a look. A refusal is no use."""
        if name in self.lives:
            self.lives[name].used = self.harness.clock.now
            self.lives.move_to_end(name)

    def begin(self, name: str, *, ends: bool = False) -> Life:
        """Begin a life. The least recently used one may have to make room, unless the new one ends at once."""
        if len(self.lives) == MAX_SESSIONS and not ends:
            self.lives.popitem(last=False)
        life = self.lives[name] = Life([], 0, self.ended.pop(name, ({}, 0.0))[0])
        return life

    def known(self, name: str) -> Answers:
        """Return what the session has answered under keys."""
        return self.lives[name].answers if name in self.lives else self.ended.get(name, ({}, 0.0))[0]

    def apply(self, name: str, items: list[Any], answer: dict[str, Any], *, ends: bool = False) -> Life:
        """Check the answer of an applied event against the model."""
        assert "step" in answer, answer
        life = self.lives.get(name)
        assert answer["state"] == ("new" if life is None else "restored" if life.restored else "continued")
        life = life or self.begin(name, ends=ends)
        before = [life.items] if life.items else []
        life.items = life.items + items
        life.restored = False
        assert answer["step"] == len(life.items)
        assert same((predictions(answer), observed(answer)), self.alone.walk([*before, items])[-1])
        self.use(name)
        return life

    def remember(self, name: str, key: str | None, request: Any, content: bytes) -> None:
        """Note the answer under a key, if there is one."""
        if key is not None:
            self.lives[name].answers[key] = (request, content)

    def recalls(self, name: str, key: str | None, request: Any, response: httpx.Response) -> bool:
        """Return whether a key was used before; then the response must repeat the first answer, or refuse."""
        if key not in self.known(name):
            return False
        first, content = self.known(name)[key]
        if first == request:
            assert response.content == content
            self.use(name)
        else:
            assert response.json()["code"] == "idempotency_key_reused"
        return True

    @rule(
        name=names,
        items=histories,
        key=st.none() | keys,
        end=st.sampled_from([False, False, True]),
        step=st.none() | st.integers(0, 6),
    )
    def event(self, name: str, items: list[Any], key: str | None, end: bool, step: int | None) -> None:
        """An event is applied if its expected step is right, and once under a key; it may end its session."""
        request = asked(items, end=end, step=step)
        held = name in self.lives
        stands = len(self.lives[name].items) if held else 0
        response = self.send(name, *items, key=key, end=end, expected_step=step)
        if self.recalls(name, key, request, response):
            return
        if step is not None and step != stands:
            assert response.json()["code"] == ("step_conflict" if held else "session_gone")
            assert response.json().get("step") == (stands if held else None)
        else:
            self.apply(name, items, response.json(), ends=end)
            self.remember(name, key, request, response.content)
            if end:
                self.finish(name)

    def finish(self, name: str) -> None:
        """End a session; the answers of the last MAX_SESSIONS ended sessions are kept."""
        life = self.lives.pop(name)
        if life.answers:
            self.ended[name] = (life.answers, self.harness.clock.now)
            if len(self.ended) > MAX_SESSIONS:
                self.ended.popitem(last=False)

    @rule(name=names, items=histories)
    def bad_item(self, name: str, items: list[Any]) -> None:
        """An unknown item refuses the whole request."""
        assert self.send(name, *items, "zebra").json()["code"] == "unknown_item"

    @rule(name=names, items=histories, at=st.integers(0, 3), poisoned=st.booleans())
    def failing_event(self, name: str, items: list[Any], at: int, poisoned: bool) -> None:
        """A run that fails, or logits that are not finite, in the middle of a request leave the session as it was."""
        with self.poisoning(items[at % len(items)]) if poisoned else self.failing(at % len(items)):
            assert self.send(name, *items).json()["code"] == "internal"

    @contextmanager
    def poisoning(self, item: Any) -> Iterator[None]:
        """Let the model give logits that are not finite for an item."""
        self.harness.engine.poison = index_of(item)
        yield
        self.harness.engine.poison = None

    @contextmanager
    def failing(self, at: int) -> Iterator[None]:
        """Let the run fail that comes after `at` others."""
        runs = count()

        def fail(_: object) -> None:
            if next(runs) == at:
                raise RuntimeError("engine on fire")

        self.harness.engine.before = fail
        yield
        self.harness.engine.before = lambda _: None

    @rule(name=names, items=histories, start=st.booleans(), at=st.none() | st.integers(0, 3))
    def sequence(self, name: str, items: list[Any], start: bool, at: int | None) -> None:
        """A start begins the session again, a step continues a held one, and a failure of either changes nothing."""
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
        else:
            life = self.lives.get(name) or self.begin(name)
            life.items, life.restored = ([] if start else life.items) + items, False
            step, chances = response.json()["outputs"]
            assert step["data"] == [len(life.items)]
            likely, _ = self.alone.walk([life.items])[0]
            expected = [float(np.float32(chance)) for _, chance in likely]
            assert same_likely(list(enumerate(chances["data"])), list(enumerate(expected)))
            self.use(name)

    @rule(name=names, items=histories)
    def late_event(self, name: str, items: list[Any]) -> None:
        """An event whose deadline has passed is not applied."""
        token = LATE.set(True)
        response = self.send(name, *items)
        LATE.reset(token)
        assert response.json()["code"] == "deadline_exceeded"

    @rule(name=names, items=histories, key=keys, rounds=st.integers(0, 12))
    def abandoned_event(self, name: str, items: list[Any], key: str, rounds: int) -> None:
        """If a client leaves at any time and repeats the event under its key, the event is applied once."""
        if key in self.known(name):
            return

        async def leave() -> httpx.Response:
            sending = asyncio.create_task(self.harness.send(name, *items, top_k=V, key=key))
            for _ in range(rounds):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            return await self.harness.send(name, *items, top_k=V, key=key)

        response = self.loop.run_until_complete(leave())
        self.apply(name, items, response.json())
        self.remember(name, key, asked(items, end=False, step=None), response.content)

    @rule(name=names, chunks=st.lists(histories, min_size=2, max_size=5))
    def burst(self, name: str, chunks: list[list[Any]]) -> None:
        """Events sent to one session at once are applied in their order."""

        async def send_all() -> list[httpx.Response]:
            return list(await asyncio.gather(*(self.harness.send(name, *chunk, top_k=V) for chunk in chunks)))

        for chunk, response in zip(chunks, self.loop.run_until_complete(send_all()), strict=True):
            self.apply(name, chunk, response.json())

    @rule(name=names, chunks=st.lists(st.none() | histories, min_size=1, max_size=6))
    def bulk(self, name: str, chunks: list[list[Any] | None]) -> None:
        """A bulk request applies its events in order; refused events change nothing."""
        events = [{"session_id": name, "items": chunk or ["a", "zebra"], "top_k": V} for chunk in chunks]
        results = self.ask("POST", "events", json={"events": events}).json()["results"]
        for chunk, result in zip(chunks, results, strict=True):
            if chunk is None:
                assert result["code"] == "unknown_item"
            else:
                self.apply(name, chunk, result)

    @rule(target=files, name=names)
    def save(self, name: str) -> Any:
        """A session's file has the session's recent items, and the tensors of the reference."""
        response = self.ask("GET", f"sessions/{name}/state")
        self.use(name)
        if name not in self.lives:
            assert response.json()["code"] == "unknown_session"
            return multiple()
        body, items = response.content, self.lives[name].items
        tensors = safetensors.numpy.load(body)
        assert tensors.pop("recent").tolist() == [index_of(item) for item in items[-RECENT:]]
        expected = self.alone.tensors(items)
        room = 0 if Chosen.engine == "host" else 1e-5
        assert all(np.allclose(tensors[part], expected[part], 0, room) for part in {*tensors, *expected})
        return Saved(body, list(items))

    @rule(file=files, name=names, key=st.none() | keys)
    def restore(self, file: Saved, name: str, key: str | None) -> None:
        """A file replaces the state of any session, once under a key; the session's remembered answers are kept."""
        response = self.ask("PUT", f"sessions/{name}/state", content=file.body, headers=with_key(key))
        if self.recalls(name, key, file.body, response):
            return
        info = response.json()
        assert (info["step"], info["recent"]) == (len(file.items), file.items[-RECENT:])
        life = self.lives.get(name) or self.begin(name)
        life.items, life.restored = list(file.items), True
        self.remember(name, key, file.body, response.content)
        self.use(name)

    @rule(file=files, name=names, stranger=st.booleans())
    def restore_what_is_wrong(self, file: Saved, name: str, stranger: bool) -> None:
        """A file of another model, or one cut off, is refused and changes nothing."""
        (size,) = struct.unpack("<Q", file.body[:8])
        other = file.body[:8] + file.body[8 : 8 + size].replace(b"sha256:0", b"sha256:f") + file.body[8 + size :]
        response = self.ask("PUT", f"sessions/{name}/state", content=other if stranger else file.body[:-1])
        assert response.json()["code"] == ("model_mismatch" if stranger else "invalid_state")

    @rule(name=names)
    def peek(self, name: str) -> None:
        """A look answers the session's predictions, or that the session is unknown."""
        response = self.ask("GET", f"sessions/{name}/predictions?top_k={V}")
        if name in self.lives:
            life = self.lives[name]
            assert same_likely(predictions(response.json()), self.alone.walk([life.items])[0][0])
            assert response.json()["state"] == ("restored" if life.restored else "continued")
        else:
            assert response.json()["code"] == "unknown_session"
        self.use(name)

    @rule(name=names, key=st.none() | keys)
    def remove(self, name: str, key: str | None) -> None:
        """A removal forgets a session and its answers, once under a key; only the answer to that key is kept."""
        response = self.ask("DELETE", f"sessions/{name}", headers=with_key(key))
        if self.recalls(name, key, "removal", response):
            return
        if name not in self.lives:
            assert response.json()["code"] == "unknown_session"
        else:
            assert response.status_code == 204
            self.lives[name].answers = {}
            self.remember(name, key, "removal", b"")
            self.finish(name)

    @rule(seconds=st.sampled_from([1, 60, TTL - 1, TTL]))
    def wait(self, seconds: int) -> None:
        """Time passes, and sessions that were not used for TTL seconds expire."""
        self.harness.clock.now += seconds
        horizon = self.harness.clock.now - TTL
        for name in [name for name, life in self.lives.items() if life.used <= horizon]:
            del self.lives[name]
        for name in [name for name, (_, at) in self.ended.items() if at <= horizon]:
            del self.ended[name]

    @invariant()
    def sessions_are_those_of_the_model(self) -> None:
        """Exactly the expected sessions are held, with their steps and answers, and every other slot is free."""
        service = self.harness.service
        for name in NAMES:
            response = self.ask("GET", f"sessions/{name}")
            step = response.json()["step"] if response.status_code == 200 else None
            assert step == (len(self.lives[name].items) if name in self.lives else None)
        assert service.model.slots.free == self.slots - len(self.lives)
        assert service.pending == 0
        kept = [*(life.answers for life in self.lives.values()), *(answers for answers, _ in self.ended.values())]
        sizes = [ANSWER_OVERHEAD + len(key) + len(answer) for part in kept for key, (_, answer) in part.items()]
        assert service.sessions.answer_bytes == sum(sizes)


TestSessionMachine = pytest.mark.filterwarnings("error")(SessionMachine.TestCase)
TestSessionMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
