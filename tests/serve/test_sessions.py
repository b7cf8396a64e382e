"""The table of sessions: exactly-once, atomicity, eviction, bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from arraylstm_serve.sessions.session import Session
from arraylstm_serve.sessions.table import Table

from ..waiting import until_soon
from .bundles import expected_predictions
from .harness import Harness, predictions
from .test_events import near

pytestmark = pytest.mark.anyio


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Return a refused request's status and code."""
    return response.status_code, response.json()["code"]


async def step_of(harness: Harness, session_id: str) -> int:
    """Return the step at which a session stands."""
    return int((await harness.client.get(f"/v1/sessions/{session_id}")).json()["step"])


async def test_a_repeated_key_answers_again_and_moves_nothing(harness: Harness) -> None:
    """A retry under the same key gets the first answer byte for byte, whatever came in between."""
    first = await harness.send("u", "a", "b", key="k1", expected_step=0)
    await harness.send("u", "c")
    again = await harness.send("u", "a", "b", key="k1", expected_step=0)
    assert again.content == first.content
    assert await step_of(harness, "u") == 3


async def test_concurrent_repeats_apply_once(harness: Harness) -> None:
    """Copies of a request sent at once under one key are applied once and all get the same answer."""
    responses = await asyncio.gather(*(harness.send("u", "a", "b", key="k") for _ in range(20)))
    assert len({response.content for response in responses}) == 1
    assert await step_of(harness, "u") == 2


@pytest.mark.parametrize("change", [{"top_k": 3}, {"exclude": ["a"]}, {"expected_step": 1}])
async def test_a_key_belongs_to_one_request(harness: Harness, change: dict[str, Any]) -> None:
    """The same key with another body is refused and moves nothing."""
    await harness.send("u", "a", key="k")
    assert refusal(await harness.send("u", "b", key="k")) == (422, "idempotency_key_reused")
    assert refusal(await harness.send("u", "a", key="k", **change)) == (422, "idempotency_key_reused")
    assert await step_of(harness, "u") == 1


async def test_keys_are_each_sessions_own(harness: Harness) -> None:
    """Two sessions may use the same key for different requests."""
    await harness.send("u", "a", key="k")
    assert (await harness.send("v", "b", key="k")).json()["state"] == "new"


async def test_the_last_sixteen_keys_are_remembered(harness: Harness) -> None:
    """A session remembers its last 16 keys; the one before them is applied again."""
    for number in range(17):
        await harness.send("u", "a", key=f"k{number}")
    assert (await harness.send("u", "a", key="k1")).json()["step"] == 2
    assert (await harness.send("u", "a", key="k0")).json()["step"] == 18


async def test_a_refused_request_leaves_its_key_free(harness: Harness) -> None:
    """A key under which nothing was applied may be used again."""
    await harness.send("u", "a")
    assert refusal(await harness.send("u", "b", key="k", expected_step=7)) == (409, "step_conflict")
    assert (await harness.send("u", "b", key="k", expected_step=1)).json()["step"] == 2


async def test_a_wrong_expected_step_is_told_the_right_one(harness: Harness) -> None:
    """An event that expects another step is refused with the session's step, and not applied."""
    await harness.send("u", "a", "b")
    response = await harness.send("u", "c", expected_step=1)
    assert refusal(response) == (409, "step_conflict")
    assert (response.json()["session_id"], response.json()["step"]) == ("u", 2)
    assert (await harness.send("u", "c", expected_step=2)).json()["step"] == 3


async def test_a_step_is_expected_when_the_turn_comes(harness: Harness) -> None:
    """Each of several events queued at once is judged by the session's step at its own turn."""
    responses = await asyncio.gather(*(harness.send("u", "a", expected_step=step) for step in (0, 1, 1, 2, 9)))
    assert [response.status_code for response in responses] == [200, 200, 409, 200, 409]


async def test_a_session_not_held_is_gone_for_those_who_expect_it(harness: Harness) -> None:
    """An event that expects a step of a session that is not held is answered 410; one that expects 0 begins it."""
    assert refusal(await harness.send("u", "a", expected_step=3)) == (410, "session_gone")
    assert (await harness.client.get("/v1/sessions/u")).status_code == 404
    assert (await harness.send("u", "a", expected_step=0)).json()["state"] == "new"


@pytest.mark.parametrize("runs_before", [0, 1, 2])
async def test_items_apply_all_or_none(harness: Harness, runs_before: int) -> None:
    """A run that fails at any item of a request leaves the session as it was before the request."""
    await harness.send("u", "a")
    runs = iter(range(10))

    def fail(items: object) -> None:
        if next(runs) == runs_before:
            raise RuntimeError("engine on fire")

    harness.engine.before = fail
    response = await harness.send("u", "b", "c", "d")
    assert refusal(response) == (500, "internal")
    assert "fire" not in response.text
    harness.engine.before = lambda items: None
    assert await step_of(harness, "u") == 1
    answer = (await harness.send("u", "e")).json()
    assert predictions(answer) == near(expected_predictions(["a", "e"]))


@pytest.mark.parametrize("items", [["a"], ["a", "5"]])
async def test_a_session_exists_only_once_its_first_event_is_applied(bundle_path: Path, items: list[str]) -> None:
    """A failed first event leaves no session, and no slot or room taken."""
    harness = Harness(bundle_path, max_sessions=1)
    free = harness.service.model.slots.free
    harness.engine.poison = 0
    assert refusal(await harness.send("u", *items)) == (500, "internal")
    assert (await harness.client.get("/v1/sessions/u")).status_code == 404
    assert (harness.service.model.slots.free, harness.service.pending) == (free, 0)
    harness.engine.poison = None
    assert (await harness.send("u", "b")).json()["state"] == "new"


async def test_a_failing_session_does_not_stop_its_batch_or_its_queue(harness: Harness) -> None:
    """Logits that are not finite fail one request; others of its batch, and later ones of its session, are answered."""
    harness.engine.poison = 2
    responses = await asyncio.gather(
        harness.send("u", "a"), harness.send("v", "c"), harness.send("v", "b"), harness.send("u", "c", "a")
    )
    assert [response.status_code for response in responses] == [200, 500, 200, 500]
    assert (await step_of(harness, "u"), await step_of(harness, "v")) == (1, 1)


async def test_the_least_recently_used_session_makes_room(bundle_path: Path) -> None:
    """A new session beyond the bound takes the place of the least recently used one; a look counts as use."""
    harness = Harness(bundle_path, max_sessions=2)
    for name in ("old", "new"):
        await harness.send(name, "a")
    await harness.client.get("/v1/sessions/old/predictions")
    await harness.client.get("/v1/sessions/new")
    assert (await harness.send("third", "a")).json()["state"] == "new"
    assert refusal(await harness.send("new", "b", expected_step=1)) == (410, "session_gone")
    assert (await harness.send("old", "b", expected_step=1)).json()["state"] == "continued"


@pytest.mark.parametrize("items", [["a"], ["b", "a"]])
async def test_only_a_session_that_begins_makes_another_go(bundle_path: Path, items: list[str]) -> None:
    """If the first event of a new session fails, no other session has lost its place."""
    harness = Harness(bundle_path, max_sessions=1)
    await harness.send("old", "b")
    harness.engine.poison = 0
    assert refusal(await harness.send("new", *items)) == (500, "internal")
    assert await step_of(harness, "old") == 1


async def test_sessions_that_were_too_many_go_as_they_come_to_rest(bundle_path: Path) -> None:
    """If held sessions get events while new ones begin, all are kept beyond the bound until they are idle again."""
    harness = Harness(bundle_path, max_sessions=2)
    for name in ("u", "v"):
        await harness.send(name, "a")
    begin = [harness.send(name, "a") for name in ("w", "x")]
    answers = await asyncio.gather(*begin, *(harness.send(name, *["a"] * 9) for name in ("u", "v")))
    assert [answer.json()["step"] for answer in answers] == [1, 1, 10, 10]
    assert len(harness.service.sessions) == 2


async def test_a_session_makes_room_when_it_begins(bundle_path: Path) -> None:
    """The session that makes room goes as soon as the new one is held, even if the new one stays busy."""
    harness = Harness(bundle_path, max_sessions=1)
    await harness.send("old", "a")
    held: list[int] = []
    harness.engine.before = lambda items: held.append(len(harness.service.sessions))
    await asyncio.gather(harness.send("new", "a"), harness.send("new", "b"))
    assert held == [1, 1]


async def test_no_more_sessions_begin_at_once_than_are_held(bundle_path: Path) -> None:
    """However many sessions are idle, only as many as may be held begin at the same time."""
    harness = Harness(bundle_path, max_sessions=2)
    for name in ("u", "v"):
        await harness.send(name, "a")
    answers = await asyncio.gather(*(harness.send(name, "a") for name in ("w", "x", "y")))
    assert [answer.status_code for answer in answers] == [200, 200, 503]


async def test_there_is_a_slot_for_everything_that_is_pending(bundle_path: Path) -> None:
    """New sessions, held sessions and histories all walk at once, up to the number of requests that may be pending."""
    harness = Harness(bundle_path, max_sessions=2, max_pending=6)
    for name in ("u", "v"):
        await harness.send(name, "a")
    long = ["a"] * 50
    sends = [("w", ["a"]), ("w", long), ("x", ["a"]), ("x", long), ("u", long), ("v", long)]
    tasks = [asyncio.create_task(harness.send(name, *items)) for name, items in sends]
    for pending in (6, 4):
        await until_soon(lambda pending=pending: harness.service.pending == pending)
    predict = [harness.client.post("/v1/predict", json={"items": long}) for _ in range(2)]
    answers = await asyncio.gather(*tasks, *predict)
    assert [answer.status_code for answer in answers] == [200] * 8


async def test_remembered_answers_are_bounded(bundle_path: Path) -> None:
    """Beyond max_answer_bytes the least recently used sessions go, until the remembered answers fit."""
    one = Harness(bundle_path)
    await one.send("s0", "a", key="k")
    size = one.service.sessions.answer_bytes
    harness = Harness(bundle_path, max_answer_bytes=3 * size)
    for number in range(5):
        await harness.send(f"s{number}", "a", key="k")
    held = [(await harness.client.get(f"/v1/sessions/s{number}")).status_code for number in range(5)]
    assert held == [404, 404, 200, 200, 200]
    assert harness.service.counters.evicted == {"expired": 0, "room": 0, "answers": 2}
    assert harness.service.sessions.answer_bytes == 3 * size


async def test_sessions_that_remember_no_answers_make_no_room_for_answers(bundle_path: Path) -> None:
    """Requests with many keys do not evict sessions that were never sent a key."""
    harness = Harness(bundle_path, max_answer_bytes=3000)
    for number in range(10):
        await harness.send(f"plain{number}", "a")
    for number in range(10):
        await harness.send(f"keyed{number}", "a", key="k")
    for number in range(10):
        assert (await harness.client.get(f"/v1/sessions/plain{number}")).status_code == 200
    assert 0 < harness.service.sessions.answer_bytes <= 3000


async def test_forgotten_answers_count_no_more(harness: Harness) -> None:
    """Answers of keys beyond the last 16, and those of a session removed, take no room."""
    await harness.send("u", "a", key="k00")
    one = harness.service.sessions.answer_bytes
    for number in range(1, 20):
        await harness.send("u", "a", key=f"k{number:02}")
    assert harness.service.sessions.answer_bytes < 17 * one
    await harness.client.delete("/v1/sessions/u")
    assert harness.service.sessions.answer_bytes == 0


async def test_a_session_expires_after_its_time_without_use(bundle_path: Path) -> None:
    """A session expires session_ttl seconds after its last use; inspecting it is not a use."""
    harness = Harness(bundle_path, session_ttl=100)
    free = harness.service.model.slots.free
    await harness.send("u", "a")
    harness.clock.now += 99
    assert (await harness.send("u", "b")).json()["state"] == "continued"
    harness.clock.now += 99
    assert await step_of(harness, "u") == 2
    harness.clock.now += 1
    assert refusal(await harness.client.get("/v1/sessions/u")) == (404, "unknown_session")
    assert refusal(await harness.send("u", "c", expected_step=2)) == (410, "session_gone")
    assert harness.service.model.slots.free == free
    assert (await harness.send("u", "c")).json()["state"] == "new"


async def test_an_expired_session_is_not_continued(bundle_path: Path) -> None:
    """An event to an expired session begins it again, and by then the slots of all expired sessions are free."""
    harness = Harness(bundle_path, session_ttl=100)
    free = harness.service.model.slots.free
    for name in ("u", "v", "w"):
        await harness.send(name, "a")
    harness.clock.now += 100
    assert (await harness.send("u", "b")).json()["state"] == "new"
    assert harness.service.model.slots.free == free - 1


async def test_busy_sessions_never_make_room(bundle_path: Path) -> None:
    """While every session is busy, a new one is refused; later it is accepted."""
    harness = Harness(bundle_path, max_sessions=2)
    await harness.send("u", "a")
    busy = [harness.send("u", *["a"] * 20), harness.send("v", *["a"] * 20)]
    *others, refused = await asyncio.gather(*busy, harness.send("w", "a"))
    assert [response.json()["step"] for response in others] == [21, 20]
    assert refusal(refused) == (503, "capacity")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await harness.send("w", "a")).json()["state"] == "new"


async def test_pending_work_is_bounded(bundle_path: Path) -> None:
    """Beyond max_pending requests are refused at once with Retry-After; later ones are served again."""
    harness = Harness(bundle_path, max_pending=3)
    sends = [harness.send(name, "a") for name in ("u", "u", "v", "w", "x")]
    responses = await asyncio.gather(*sends)
    assert [response.status_code for response in responses] == [200, 200, 200, 503, 503]
    assert refusal(responses[-1]) == (503, "overloaded")
    assert int(responses[-1].headers["retry-after"]) >= 1
    assert harness.service.pending == 0
    assert (await harness.send("w", "a")).status_code == 200


@pytest.mark.parametrize("items", [["a"], ["a", "b", "c"]])
async def test_a_client_that_leaves_loses_no_step(harness: Harness, items: list[str]) -> None:
    """Requests whose clients have gone are still applied, once, and the session goes on."""
    await harness.send("u", "d")
    requests = [asyncio.create_task(harness.send("u", *items, key=f"k{n}")) for n in range(3)]
    await until_soon(lambda: harness.service.pending)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    await harness.settle()
    assert await step_of(harness, "u") == 1 + 3 * len(items)
    assert (await harness.send("u", *items, key="k1")).json()["step"] == 1 + 2 * len(items)


async def test_no_slot_is_ever_lost(bundle_path: Path) -> None:
    """After sessions have come, failed, been evicted and removed, every slot is free again."""
    harness = Harness(bundle_path, max_sessions=3, max_pending=50)
    free = harness.service.model.slots.free
    harness.engine.poison = 4
    for _ in range(5):
        await asyncio.gather(*(harness.send(f"s{n}", *"abcde"[n % 4 : n % 4 + 1 + n % 2]) for n in range(8)))
        await harness.client.post("/v1/predict", json={"items": ["a", "e"]})
    for n in range(8):
        await harness.client.delete(f"/v1/sessions/s{n}")
    assert (harness.service.model.slots.free, harness.service.pending) == (free, 0)


async def test_where_a_session_stands_is_told_at_once(bundle_path: Path) -> None:
    """Asking where a session stands waits for none of its events and takes no place: it tells what is committed."""
    harness = Harness(bundle_path, max_pending=2, max_session_pending=2)
    await harness.send("u", "a")
    walks = [asyncio.create_task(harness.send("u", *["b"] * 50)) for _ in range(2)]
    await until_soon(lambda: harness.service.pending >= 2)
    assert refusal(await harness.client.get("/v1/sessions/u/predictions")) == (429, "session_busy")
    answer = await harness.client.get("/v1/sessions/u")
    assert (answer.status_code, answer.json()["step"]) == (200, 1)
    assert harness.service.pending == 2
    assert (await walks[1]).json()["step"] == 101
    await walks[0]


@pytest.mark.parametrize("held", [False, True])
async def test_an_answer_that_cannot_be_written_changes_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Where writing the answer fails the session stays where it was, its key is free, and no slot is lost."""
    if held:
        await harness.send("u", "a")
    free = harness.service.model.slots.free
    with monkeypatch.context() as patch:
        patch.setattr("arraylstm_serve.sessions.rendering.encode", lambda answer: 1 / 0)
        assert refusal(await harness.send("u", "b", "c", key="k")) == (500, "internal")
    assert harness.service.model.slots.free == free
    assert (await harness.client.get("/v1/sessions/u")).status_code == (200 if held else 404)
    answer = (await harness.send("u", "d", key="k")).json()
    assert (answer["step"], answer["state"]) == ((2, "continued") if held else (1, "new"))


async def test_a_change_that_cannot_be_committed_is_refused_alone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one session's commit fails, the others of the same batch are committed and answered."""
    commit = Table.commit

    def fail(table: Table, after: Session) -> None:
        if after.key == "bad":
            raise RuntimeError("store on fire")
        commit(table, after)

    free = harness.service.model.slots.free
    with monkeypatch.context() as patch:
        patch.setattr(Table, "commit", fail)
        responses = await asyncio.gather(*(harness.send(name, "a") for name in ("good", "bad", "fine")))
    assert [response.status_code for response in responses] == [200, 500, 200]
    assert harness.service.model.slots.free == free - 2
    assert (await harness.send("bad", "a")).json()["state"] == "new"


async def test_answers_dropped_while_their_session_begins_again_count_once(bundle_path: Path) -> None:
    """Answers of an ended session that make room while its next life begins are counted as they are kept."""
    harness = Harness(bundle_path, max_answer_bytes=2000)
    await harness.send("u", "a", key="k", end=True)
    again = asyncio.create_task(harness.send("u", *["b"] * 5))
    await until_soon(lambda: harness.service.pending)
    for number in range(4):  # each has an answer to remember, so that the ended session's makes room
        await harness.send(f"v{number}", "a", key="k", end=True)
    assert (await again).json()["step"] == 5
    table = harness.service.sessions
    kept = [*table._held.values(), *table._ended.values()]
    assert table.answer_bytes == sum(session.answers.nbytes for session in kept)
