"""Idempotency keys on every request that changes a session: events, PUTs of a state, removals, inferences."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from arraylstm_serve.sessions.management import Remove, Restore
from arraylstm_serve.sessions.queue import digest
from arraylstm_serve.sessions.rendering import render_session
from arraylstm_serve.sessions.walking import Advance

from .harness import Harness
from .test_auth import ALICE, BOB, bearer
from .test_auth import guarded as guarded
from .test_problems import check

pytestmark = pytest.mark.anyio

URL = "/v1/sessions/u"
STEP = {"name": "items", "shape": [1], "datatype": "INT64", "data": [0]}
INFERENCE = {"inputs": [STEP], "parameters": {"sequence_id": "u", "sequence_start": True}}
REUSED = 'Idempotency-Key "k" was sent before with another request.'


class Requests:
    """Sends requests of each kind to the session u; the state is that of a session after two items."""

    def __init__(self, harness: Harness, state: bytes) -> None:
        self.client = harness.client
        self.state = state

    @classmethod
    async def of(cls, harness: Harness, **headers: str) -> Requests:
        """Make the requests; the session u need not be held."""
        url = "/v1/sessions/other"
        await harness.client.post(f"{url}/events", json={"items": ["a", "b"]}, headers=headers)
        return cls(harness, (await harness.client.get(f"{url}/state", headers=headers)).content)

    async def __call__(self, kind: str, key: str | None = None, **headers: str) -> httpx.Response:
        """Send a request of a kind."""
        sent: dict[str, tuple[str, str, dict[str, Any]]] = {
            "event": ("POST", f"{URL}/events", {"json": {"items": ["c"]}}),
            "state": ("PUT", f"{URL}/state", {"content": self.state}),
            "removal": ("DELETE", URL, {}),
            "inference": ("POST", "/v2/models/arraylstm/infer", {"json": INFERENCE}),
        }
        method, path, body = sent[kind]
        with_key = {} if key is None else {"Idempotency-Key": key}
        return await self.client.request(method, path, headers=with_key | headers, **body)


async def step_of(harness: Harness, **headers: str) -> int | None:
    """Return the step at which the session stands; None if it is not held."""
    response = await harness.client.get(URL, headers=headers)
    return response.json().get("step") if response.status_code == 200 else None


async def test_a_repeated_state_does_not_roll_back_what_came_since(harness: Harness) -> None:
    """A repeated PUT gets the first answer byte for byte, and events that came in between stay."""
    ask = await Requests.of(harness)
    first = await ask("state", "k")
    harness.clock.now += 7
    await ask("event")
    assert (await ask("state", "k")).content == first.content
    assert (await step_of(harness), harness.service.counters.replays) == (3, 1)
    assert (await ask("state", "another")).json()["step"] == 2


async def test_a_repeated_removal_does_not_remove_what_began_since(harness: Harness) -> None:
    """A repeated DELETE is answered 204 again; a session that has begun since is not removed."""
    ask = await Requests.of(harness)
    await ask("event")
    answers = [await ask("removal", "k") for _ in range(2)]
    assert (await ask("event")).json()["state"] == "new"
    answers.append(await ask("removal", "k"))
    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 3
    assert (await step_of(harness), harness.service.counters.replays) == (1, 2)
    assert (await ask("removal", "another")).status_code == 204
    assert await step_of(harness) is None


async def test_copies_sent_at_once_are_taken_once(harness: Harness) -> None:
    """If removals or states under one key are queued with events between them, only the first changes the session."""
    ask = await Requests.of(harness)
    kinds = [("removal", "r"), ("event", None), ("removal", "r"), ("state", "s"), ("event", None), ("state", "s")]
    _, *answers = await harness.in_order(harness.send("u", *"abcd" * 200), *(ask(*kind) for kind in kinds))
    assert [answer.status_code for answer in answers] == [204, 200, 204, 200, 200, 200]
    assert [answers[place].json()["step"] for place in (1, 3, 4, 5)] == [1, 2, 3, 2]
    assert await step_of(harness) == 3


KINDS = ["event", "state", "removal", "inference"]


@pytest.mark.parametrize(("first", "second"), [(one, other) for one in KINDS for other in KINDS if one != other])
async def test_a_key_belongs_to_one_kind_of_request(harness: Harness, first: str, second: str) -> None:
    """A key of one kind of request is refused for another kind, and the session does not change, held or not."""
    ask = await Requests.of(harness)
    await ask("event")
    assert (await ask(first, "k")).is_success
    stood = await step_of(harness)
    refused = await ask(second, "k")
    if second == "inference":
        assert (refused.status_code, refused.json()) == (400, {"error": REUSED})
    else:
        assert check(refused, "idempotency_key_reused") | {"session_id": "u", "detail": REUSED} == refused.json()
    assert (await step_of(harness), harness.service.counters.replays) == (stood, 0)


def test_the_kind_is_part_of_the_request() -> None:
    """Requests of different kinds differ even with the same content; those of one kind do not, whatever the session."""
    asked = b"asked"

    def inference(session_id: str) -> Advance:
        return Advance(session_id=session_id, items=["a"], top_k=1, render=render_session, body=asked)

    one, same = inference("u"), inference("v")
    others = Restore(session_id="u", file=asked, describe=lambda *_: b""), Remove(session_id="u")
    assert digest(one) == digest(same)
    assert len({digest(command) for command in (one, *others)}) == 3


async def test_a_key_belongs_to_one_state(harness: Harness) -> None:
    """The same key with another state is refused and moves nothing."""
    ask = await Requests.of(harness)
    await ask("state", "k")
    await ask("event")
    ask.state = (await harness.client.get(f"{URL}/state")).content
    check(await ask("state", "k"), "idempotency_key_reused")
    assert await step_of(harness) == 3


async def test_a_removal_with_a_key_forgets_everything_but_that_key(harness: Harness) -> None:
    """Answers from before the removal are forgotten and their keys free; the removal's own key is still remembered."""
    ask = await Requests.of(harness)
    await ask("event", "k0")
    await ask("state", "k1")
    remembered = harness.service.sessions.answer_bytes
    await ask("removal", "k")
    assert 0 < harness.service.sessions.answer_bytes < remembered
    again = await ask("event", "k0")
    assert (again.json()["step"], again.json()["state"]) == (1, "new")
    assert (await ask("state", "k1")).json()["step"] == 2
    assert (await ask("removal", "k")).status_code == 204
    assert await step_of(harness) == 2


async def test_a_removal_without_a_key_keeps_nothing(harness: Harness) -> None:
    """After the removal every key of the session is free, even that of an earlier removal."""
    ask = await Requests.of(harness)
    await ask("event")
    await ask("removal", "k")
    await ask("event")
    await ask("removal")
    assert harness.service.sessions.answer_bytes == 0
    check(await ask("removal", "k"), "unknown_session")


async def test_a_refused_removal_leaves_its_key_free(harness: Harness) -> None:
    """A DELETE of a session that is not held is refused; its key may remove the session later."""
    ask = await Requests.of(harness)
    check(await ask("removal", "k"), "unknown_session")
    await ask("event")
    assert (await ask("removal", "k")).status_code == 204
    assert await step_of(harness) is None


async def test_a_refused_state_leaves_its_key_free(bundle_path: Path) -> None:
    """A PUT that was refused because every session was busy is applied when it is sent again."""
    harness = Harness(bundle_path, max_sessions=1)
    ask = await Requests.of(harness)
    _, refused = await asyncio.gather(harness.send("other", *["a"] * 9), ask("state", "k"))
    check(refused, "capacity")
    assert (await ask("state", "k")).json()["step"] == await step_of(harness) == 2


async def test_requests_of_all_kinds_are_among_the_last_sixteen(harness: Harness) -> None:
    """A session that begins after a removal remembers the removal's key through 15 others, and not through 16."""
    ask = await Requests.of(harness)
    await ask("event")
    await ask("removal", "k")
    for number in range(15):
        await ask("state" if number % 2 else "event", f"k{number}")
    assert (await ask("removal", "k")).status_code == 204
    assert await step_of(harness) is not None
    await ask("state", "one more")
    assert (await ask("removal", "k")).status_code == 204
    assert await step_of(harness) is None


async def test_keys_of_removals_are_kept_for_their_time_and_within_the_bound(bundle_path: Path) -> None:
    """A removal's key is known for session_ttl seconds, and only those of the last max_sessions removals are."""
    harness = Harness(bundle_path, max_sessions=2, session_ttl=100)
    names = ["s0", "s1", "s2"]

    async def remove(name: str) -> int:
        headers = {"Idempotency-Key": "k"}
        return (await harness.client.delete(f"/v1/sessions/{name}", headers=headers)).status_code

    for name in names:
        await harness.send(name, "a")
        await remove(name)
    assert [await remove(name) for name in names] == [404, 204, 204]
    harness.clock.now += 100
    assert [await remove(name) for name in names] == [404, 404, 404]
    assert harness.service.sessions.answer_bytes == 0


@pytest.mark.parametrize("kind", ["state", "removal"])
async def test_a_key_has_a_form_on_every_request(harness: Harness, kind: str) -> None:
    """A malformed key is refused, and the session does not change."""
    ask = await Requests.of(harness)
    await ask("event")
    assert "Idempotency-Key" in check(await ask(kind, "x" * 256), "invalid_request")["detail"]
    assert await step_of(harness) == 1


async def test_keys_are_each_names_own_on_every_request(guarded: Harness) -> None:
    """Two API keys may use the same session id and idempotency key for their own requests, also after a removal."""
    ask = await Requests.of(guarded, **bearer(ALICE))
    for name in (ALICE, BOB):
        assert (await ask("state", "s", **bearer(name))).json()["step"] == 2
        await ask("event", **bearer(name))
    assert (await ask("removal", "r", **bearer(ALICE))).status_code == 204
    assert await step_of(guarded, **bearer(BOB)) == 3
    assert (await ask("event", **bearer(ALICE))).json()["state"] == "new"
    assert (await ask("removal", "r", **bearer(BOB))).status_code == 204
    assert (await ask("removal", "r", **bearer(ALICE))).status_code == 204
    assert (await step_of(guarded, **bearer(ALICE)), await step_of(guarded, **bearer(BOB))) == (1, None)
    assert guarded.service.counters.replays == 1
