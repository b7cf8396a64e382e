"""Thousands of sessions at once, with every kind of failure; each is checked against its items stepped alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest

from .alone import Alone, same_likely, same_observed
from .bundles import LABELS, V
from .harness import Harness, observed, predictions

pytestmark = pytest.mark.anyio

SESSIONS, AT_ONCE, ROUNDS = 2000, 150, 6
TRIES = 10_000
POISON = LABELS[4]
LATE: ContextVar[bool] = ContextVar("LATE", default=False)
"""Whether a request appears to have arrived long ago."""
SAFE = [label for label in LABELS if label != POISON]


@dataclass
class Life:
    """What one client knows of its session, and every answer, to check at the end."""

    chunks: list[list[Any]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The step at which the session should stand."""
        return sum(map(len, self.chunks))


class Client:
    """A client of one session, which knows only what the server tells it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.chance = random.Random(name)
        self.life = Life()
        self.lives = [self.life]
        self.keys = 0
        self.ended: tuple[str, list[Any], bytes] | None = None

    async def play(self) -> None:
        """Do something random, in each of several rounds."""
        acts = [self.event, self.event, self.twins, self.leave, self.bulk, self.bad, self.poisoned, self.look]
        acts += [self.remove, self.end, self.stale, self.late, self.move]
        for _ in range(ROUNDS):
            await self.chance.choice(acts)()
            for _ in range(self.chance.randrange(4)):
                await asyncio.sleep(0)

    def items(self) -> list[Any]:
        """Return some items that the model accepts."""
        return self.chance.choices(SAFE, k=self.chance.choice((1, 1, 2, 5)))

    def key(self) -> str:
        """Return a key that was not used before."""
        self.keys += 1
        return f"k{self.keys}"

    def restart(self) -> None:
        """Note that the session is gone; a new life begins."""
        self.life = Life()
        self.lives.append(self.life)

    def take(self, items: list[Any], answer: dict[str, Any]) -> None:
        """Note an applied event; the state in its answer must be right."""
        if answer["state"] == "new" and self.life.chunks:
            self.restart()
        assert answer["state"] == ("continued" if self.life.chunks else "new"), answer
        self.life.chunks.append(items)
        assert answer["step"] == self.life.step
        assert [entry["item"] for entry in answer["observed"]] == items
        self.life.answers.append((len(self.life.chunks), answer))

    def heed(self, items: list[Any], response: httpx.Response) -> None:
        """Note an event's answer, or count its refusal."""
        body = response.json()
        if response.status_code == 200:
            self.take(items, body)
        else:
            self.world.refusals[body["code"]] += 1
            assert body["code"] in {"internal", "capacity", "overloaded", "session_gone"}, body
            if body["code"] == "session_gone":
                assert self.life.chunks
                self.restart()

    async def send(self, items: list[Any], **fields: Any) -> httpx.Response:
        """Post an event."""
        return await self.world.harness.send(self.name, *items, top_k=V, **fields)

    async def insist(self, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Send a request again for as long as it fails or the server is overloaded, and return the response."""
        for _ in range(TRIES):
            response = await ask()
            if response.status_code not in {500, 503} or response.json()["code"] not in {"internal", "overloaded"}:
                return response
            await asyncio.sleep(0)
        raise AssertionError(f"{TRIES} tries in vain: {response.text}")

    async def event(self) -> None:
        """Send an event, usually with the expected step."""
        items = self.items()
        expected = self.life.step if self.chance.random() < 0.7 else None
        self.heed(items, await self.send(items, expected_step=expected))

    async def twins(self) -> None:
        """Send copies of an event under one key at once: one is applied, and all get the same answer."""
        items, key = self.items(), self.key()
        fields = {"expected_step": self.life.step} if self.chance.random() < 0.5 else {}
        responses = await asyncio.gather(*(self.send(items, key=key, **fields) for _ in range(3)))
        answered = [response for response in responses if response.status_code == 200]
        states = [response.json()["state"] for response in answered]
        if answered and states.count("new") < 2:
            assert len({response.content for response in answered}) == 1
            self.heed(items, answered[0])
        elif answered:  # the session was evicted between the copies, and the answers say so
            for content in dict.fromkeys(response.content for response in answered):
                self.heed(items, next(response for response in answered if response.content == content))
        else:
            self.heed(items, responses[0])

    async def leave(self) -> None:
        """Send an event, leave at any time, and send it again with the same key until it is answered."""
        items, key = self.items(), self.key()
        sending = asyncio.create_task(self.send(items, key=key))
        for _ in range(self.chance.randrange(12)):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        self.heed(items, await self.insist(lambda: self.send(items, key=key)))

    async def bulk(self) -> None:
        """Send two events with a bad one between them in one request: both are applied, or the first, or neither."""
        parts = [self.items(), ["zebra"], self.items()]
        events = [{"session_id": self.name, "items": items, "top_k": V} for items in parts]
        response = await self.world.harness.client.post("/v1/events", json={"events": events})
        first, bad, second = response.json()["results"]
        held_back = first.get("status") in {429, 503}  # then the session's later events must not overtake it
        assert bad["code"] == (first["code"] if held_back else "unknown_item")
        assert not held_back or second["code"] == first["code"]
        for items, result in ((parts[0], first), (parts[2], second)):
            self.heed(items, httpx.Response(result.get("status", 200), json=result))

    async def bad(self) -> None:
        """Send an event with an unknown item."""
        response = await self.send([*self.items(), "zebra"])
        assert response.json()["code"] == "unknown_item"

    async def poisoned(self) -> None:
        """Send an event whose last item makes the logits not finite: no item of it is applied."""
        response = await self.send([*self.items(), POISON])
        assert response.json()["code"] in {"internal", "capacity", "overloaded"}

    async def look(self) -> None:
        """Look at the session: the predictions are those of the last answer."""
        response = await self.world.harness.client.get(f"/v1/sessions/{self.name}/predictions?top_k={V}")
        body = response.json()
        if response.status_code == 200:
            assert (body["step"], body["state"]) == (self.life.step, "continued")
            self.life.answers.append((len(self.life.chunks), body))
        elif body["code"] == "unknown_session":
            self.restart()

    async def remove(self) -> None:
        """Remove the session; the next event begins a new one."""
        response = await self.insist(lambda: self.world.harness.client.delete(f"/v1/sessions/{self.name}"))
        assert response.status_code in {204, 404}
        self.restart()

    async def end(self) -> None:
        """Send an event that ends the session, and a retry, which gets the same answer."""
        items, key = self.items(), self.key()
        response = await self.send(items, key=key, end=True)
        self.heed(items, response)
        if response.status_code == 200:
            self.restart()
            again = await self.send(items, key=key, end=True)
            if again.status_code == 200 and again.content != response.content:
                assert again.json()["state"] == "new"  # the ended session was forgotten to make room
                self.take(items, again.json())
                self.restart()

    async def stale(self) -> None:
        """Send an event that expects a step at which the session cannot stand."""
        response = await self.send(self.items(), expected_step=self.life.step + 1000)
        assert response.json()["code"] in {"step_conflict", "session_gone", "overloaded"}

    async def late(self) -> None:
        """Send an event that has already waited too long."""
        token = LATE.set(True)
        response = await self.send(self.items())
        LATE.reset(token)
        assert response.json()["code"] in {"deadline_exceeded", "overloaded"}

    async def move(self) -> None:
        """Save the state, remove the session and restore it: it goes on, and says `restored` once."""
        client, url = self.world.harness.client, f"/v1/sessions/{self.name}"
        saved = await client.get(f"{url}/state")
        if saved.status_code != 200:
            return
        await self.insist(lambda: client.delete(url))
        restored = await self.insist(lambda: client.put(f"{url}/state", content=saved.content))
        if restored.status_code != 200:
            assert restored.json()["code"] == "capacity"
            self.restart()
            return
        assert restored.json()["step"] == self.life.step
        items = self.items()
        answer = (await self.insist(lambda: self.send(items))).json()
        if answer.get("state") == "restored":
            self.world.restored += 1
            self.take(items, answer | {"state": "continued"})
        else:  # the session was evicted in the meantime
            self.restart()
            self.heed(items, httpx.Response(answer.get("status", 200), json=answer))


class World:
    """A server that is too small, whose engine sometimes fails, and whose clock jumps forward."""

    def __init__(self, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bounds = {"max_sessions": 110, "session_ttl": 50, "max_batch": 24, "max_pending": 210, "max_items": 10}
        self.harness = Harness(bundle_path, **bounds)
        self.slots = self.harness.service.model.slots.free
        self.alone = Alone(self.harness.service.model.bundle)
        self.refusals: Counter[str] = Counter()
        self.restored = 0
        chance = random.Random(1)

        def before(_: object) -> None:
            if chance.random() < 0.01:
                raise RuntimeError("engine on fire")
            if chance.random() < 0.01:
                self.harness.clock.now += 60 if chance.random() < 0.3 else 5

        self.harness.engine.before = before
        self.harness.engine.poison = LABELS.index(POISON)
        monkeypatch.setattr("arraylstm_serve.http.request.perf_counter", lambda: perf_counter() - 1e6 * LATE.get())

    async def run(self) -> list[Client]:
        """Play every client, AT_ONCE of them at a time."""
        clients = [Client(self, f"s{number}") for number in range(SESSIONS)]
        waiting = iter(clients)

        async def work() -> None:
            for client in waiting:
                await client.play()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        await self.harness.settle()
        return clients


async def test_every_answer_of_every_session_is_that_of_its_items_alone(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else runs, each answer has the same bits as the host's engine gives for the session's items at batch 1.

    The test fails if a row depends on the others of its batch, two sessions share a slot, a retry is applied twice, a
    refused event has an effect, a session restarts silently, or a pending request or a session is lost.
    """
    world = World(bundle_path, monkeypatch)
    clients = await world.run()
    checked = 0
    for life in (life for client in clients for life in client.lives):
        expected = world.alone.walk(life.chunks)
        for position, answer in life.answers:
            likely, seen = expected[position - 1]
            assert same_likely(predictions(answer), likely)
            if answer["observed"]:
                assert same_observed(observed(answer), seen)
            checked += 1
    service = world.harness.service
    counters = service.counters
    assert checked > SESSIONS
    assert min(counters.evicted["expired"], counters.evicted["room"]) > 0
    assert min(counters.replays, world.refusals["internal"], world.refusals["session_gone"], world.restored) > 0
    assert service.pending == 0
    assert service.model.slots.free == world.slots - len(service.sessions)
    table = service.sessions
    kept = [*table._held.values(), *table._ended.values()]
    assert table.answer_bytes == sum(session.answers.nbytes for session in kept) > 0
