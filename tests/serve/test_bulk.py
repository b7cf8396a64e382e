"""Events of many sessions in one request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from arraylstm_serve.sessions.limits import Share

from ..devices import same_bits
from ..waiting import until_soon
from .bundles import LABELS, V
from .harness import Harness
from .test_problems import check

pytestmark = pytest.mark.anyio

Event = dict[str, Any]


def event(session_id: str, *items: Any, **fields: Any) -> Event:
    """Return an event of a bulk request."""
    return {"session_id": session_id, "items": list(items), **fields}


async def post(harness: Harness, *events: Event) -> httpx.Response:
    """Post a bulk request."""
    return await harness.client.post("/v1/events", json={"events": list(events)})


async def results(harness: Harness, *events: Event) -> list[dict[str, Any]]:
    """Post a bulk request, and return the result of each event."""
    response = await post(harness, *events)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


@same_bits
async def test_each_result_is_what_the_event_alone_would_get(tmp_path: Path, bundle_path: Path) -> None:
    """Results come in the order of the events and equal the answers of single requests, bit for bit."""
    bulk, single = Harness(bundle_path), Harness(bundle_path)
    events = [event(f"s{n % 9}", *[LABELS[n * k % V] for k in range(1, 1 + n % 4)] or ["a"]) for n in range(200)]
    expected = [(await single.send(entry["session_id"], *entry["items"])).json() for entry in events]
    assert await results(bulk, *events) == expected


async def test_events_of_one_session_apply_in_the_order_listed(harness: Harness) -> None:
    """A thousand events of one session in one request are applied one after the other."""
    found = await results(harness, *(event("u", "a", expected_step=n) for n in range(1000)))
    assert [result["step"] for result in found] == list(range(1, 1001))


@pytest.mark.parametrize(
    "bounds",
    [{"max_batch": 256}, {"max_session_pending": 3}, {"max_pending": 2}, {"max_batch": 1}],
    ids=lambda bounds: next(iter(bounds)),
)
async def test_a_request_alone_is_never_too_much_for_the_queues(bundle_path: Path, bounds: dict[str, int]) -> None:
    """Whatever the bounds are, an idle server applies a whole request: it does not overload itself."""
    harness = Harness(bundle_path, **bounds)
    found = await results(harness, *(event("u", "a", "b") for _ in range(300)))
    assert [result.get("step") for result in found] == list(range(2, 601, 2))


async def test_a_refused_event_does_not_disturb_the_others(harness: Harness) -> None:
    """A refused event has a problem with code and status as its result; the events around it are applied."""
    await harness.send("held", "a")
    harness.engine.poison = 3
    found = await results(
        harness,
        event("u", "a"),
        event("u", "zebra"),
        event("u", "b"),
        event("u", "c", expected_step=9),
        event("v", "a", expected_step=4),
        event("v", "d"),
        event("v", "a", exclude=["zebra"]),
        event("u", *["a"] * 1001),
        event("held", "b"),
    )
    codes = ["unknown_item", "step_conflict", "session_gone", "internal", "unknown_item", "invalid_request"]
    assert [result.get("step") for result in found[:3]] == [1, None, 2]
    assert [result["code"] for result in found if "code" in result] == codes
    assert [result["status"] for result in found if "code" in result] == [422, 409, 410, 500, 422, 422]
    assert (found[3]["step"], found[3]["session_id"]) == (2, "u")
    assert (found[-1]["step"], found[-1]["state"]) == (2, "continued")
    assert (await harness.client.get("/v1/sessions/v")).status_code == 404


async def test_an_entry_has_its_own_key(harness: Harness) -> None:
    """In a repeated request, events with keys get their first answers again, and events without keys are applied."""
    events = [event("u", "a", idempotency_key="k"), event("v", "b"), event("u", "c", idempotency_key="l")]
    first = await results(harness, *events)
    again = await results(harness, *events)
    assert (again[0], again[2]) == (first[0], first[2])
    assert again[1]["step"] == 2
    twice = await results(harness, *[event("u", "d", idempotency_key="m")] * 3)
    assert [result["step"] for result in twice] == [3, 3, 3]
    reused = await results(harness, event("u", "e", idempotency_key="k"))
    assert (reused[0]["code"], reused[0]["session_id"]) == ("idempotency_key_reused", "u")


async def test_a_session_can_end_and_begin_in_one_request(harness: Harness) -> None:
    """After an event that ends its session, the next one begins it again; the ending one can still be repeated."""
    events = [event("u", "a"), event("u", "b", end=True, idempotency_key="k"), event("u", "c")]
    found = await results(harness, *events)
    assert [(result["step"], result["state"]) for result in found] == [(1, "new"), (2, "continued"), (1, "new")]
    again = await results(harness, events[1])
    assert again[0] == found[1]
    assert (await harness.client.get("/v1/sessions/u")).json()["recent"] == ["c"]


async def test_other_requests_get_their_turn_in_between(harness: Harness) -> None:
    """A single event sent during a long bulk request is answered long before it ends."""
    events = [event(f"s{n}", *["a"] * 5) for n in range(1000)]
    bulk = asyncio.create_task(post(harness, *events))
    await until_soon(lambda: harness.service.pending)
    assert (await harness.send("single", "a")).status_code == 200
    assert not bulk.done()
    found = (await bulk).json()["results"]
    assert {result.get("step", result.get("code")) for result in found} <= {5, "capacity"}


async def test_bulk_requests_leave_single_events_their_places(bundle_path: Path) -> None:
    """However many bulk requests come at once, their events wait for each other, and no event is refused."""
    harness = Harness(bundle_path, max_pending=8)
    bulks = [asyncio.create_task(post(harness, *[event(f"b{n}-{m}", "a", "b") for m in range(50)])) for n in range(6)]
    singles = 0
    while not all(bulk.done() for bulk in bulks):
        sent = await asyncio.gather(*(harness.send(f"s{n}", "a") for n in range(4)))
        assert [answer.status_code for answer in sent] == [200] * 4
        singles += 1
    assert singles > 5
    for bulk in bulks:
        assert [result.get("step") for result in bulk.result().json()["results"]] == [2] * 50


async def test_events_of_different_requests_and_sessions_share_batches(bundle_path: Path) -> None:
    """Small bulk requests sent at once run together; the bound on one session's events does not affect others."""
    harness = Harness(bundle_path, max_pending=16, max_session_pending=1)
    await asyncio.gather(*(post(harness, event(f"{n}a", "a"), event(f"{n}b", "b")) for n in range(4)))
    assert harness.service.counters.batch_rows.count == 1
    assert [result["step"] for result in await results(harness, *[event("0a", "c")] * 3)] == [2, 3, 4]


async def test_a_request_waits_for_its_share_until_its_deadline(bundle_path: Path) -> None:
    """Events that wait for other requests longer than --request-timeout are refused and not applied."""
    harness = Harness(bundle_path, max_pending=4, request_timeout=0.05, max_items=100_000)
    first = [asyncio.create_task(post(harness, event(name, *["a"] * 20_000))) for name in ("long", "other")]
    await until_soon(lambda: harness.service.pending >= len(first))
    found = await results(harness, event("late", "a"), event("later", "a"), event("late", "b"))
    assert [result["code"] for result in found] == ["deadline_exceeded"] * 3
    assert not any(task.done() for task in first)
    assert [(await task).json()["results"][0]["step"] for task in first] == [20_000] * 2
    assert len(harness.service.sessions) == 2
    assert [result["step"] for result in await results(harness, event("late", "a"))] == [1]


async def test_who_stops_to_wait_lets_the_next_one_in() -> None:
    """Places are given in the order of the requests; a request that is cancelled while it waits keeps no places."""
    share = Share(20)
    had: list[int] = []

    async def have(count: int) -> None:
        async with share.places("", count, 5):
            had.append(count)
            await asyncio.sleep(0.01)

    first, big, small = (asyncio.create_task(have(count)) for count in (6, 10, 4))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert had == [6]  # 4 would fit, but came after 10
    big.cancel()
    await asyncio.gather(first, big, small, return_exceptions=True)
    assert had == [6, 4]
    again = asyncio.create_task(have(10))
    await again
    assert had == [6, 4, 10]


async def test_a_client_that_leaves_has_its_events_applied_once(bundle_path: Path) -> None:
    """If a request is cut off and sent again with the same keys, each of its events is applied once."""
    harness = Harness(bundle_path, max_batch=4)
    events = [event(f"s{n}", "a", "b", idempotency_key="k") for n in range(20)]
    sending = asyncio.create_task(post(harness, *events))
    await until_soon(lambda: harness.service.counters.changes["events"] >= 6)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert [result["step"] for result in await results(harness, *events)] == [2] * 20
    assert harness.service.counters.changes["events"] == 20
    assert harness.service.pending == 0


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", "invalid_json", ""),
        (b'{"events": []}', "invalid_request", "length >= 1"),
        (b'{"events": [{"items": ["a"]}]}', "invalid_request", "session_id"),
        (b'{"events": [{"session_id": "u"}]}', "invalid_request", "items"),
        (b'{"events": [{"session_id": "a b", "items": ["a"]}]}', "invalid_request", "session_id"),
        (b'{"events": [{"session_id": "u", "items": ["a"], "idempotency_key": ""}]}', "invalid_request", "key"),
        (b'{"events": [{"session_id": "u", "items": ["a"], "x": 1}]}', "invalid_request", "unknown field `x`"),
        (b'{"events": [], "top_k": 1}', "invalid_request", ""),
    ],
)
async def test_a_malformed_request_is_refused_as_a_whole(
    harness: Harness, content: bytes, code: str, said: str
) -> None:
    """If any event does not fit the schema, the request is refused, and no event is applied."""
    whole = content.replace(b'"events": [{', b'"events": [{"session_id": "ok", "items": ["a"]}, {')
    for body in (content, whole):
        assert said in check(await harness.client.post("/v1/events", content=body), code)["detail"]
    assert len(harness.service.sessions) == 0


async def test_the_number_of_events_is_bounded(bundle_path: Path) -> None:
    """More events than max_events are refused with both numbers, and none is applied."""
    harness = Harness(bundle_path, max_events=3)
    assert len(await results(harness, *[event("u", "a")] * 3)) == 3
    problem = check(await post(harness, *[event("u", "a")] * 4), "invalid_request")
    assert "4 events; at most 3" in problem["detail"]
    assert (await harness.client.get("/v1/sessions/u")).json()["step"] == 3


async def test_a_key_of_the_whole_request_is_refused(harness: Harness) -> None:
    """The header Idempotency-Key is refused, because keys belong to events, and no event is applied."""
    body = {"events": [event("u", "a")]}
    response = await harness.client.post("/v1/events", json=body, headers={"Idempotency-Key": "k"})
    assert "idempotency_key" in check(response, "invalid_request")["detail"]
    assert len(harness.service.sessions) == 0


async def test_the_predictions_of_a_request_are_bounded(bundle_path: Path) -> None:
    """A request is refused if its events together ask for more than --max-predictions; each counts at most V."""
    harness = Harness(bundle_path, max_predictions=2 * V)
    assert (await post(harness, event("a", "a", top_k=10**9), event("b", "b", top_k=V))).status_code == 200
    refused = await post(harness, event("a", "a", top_k=V), event("b", "b", top_k=V), event("c", "c", top_k=1))
    assert f"ask for {2 * V + 1} predictions; at most {2 * V}" in check(refused, "invalid_request")["detail"]


@pytest.mark.parametrize("field", ["session_id", "idempotency_key"])
async def test_names_have_no_line_ends(harness: Harness, field: str) -> None:
    """A session id or key that ends in a line feed is refused, as it is in a path or a header."""
    check(await post(harness, event("a", "a") | {field: "abc\n"}), "invalid_request")
