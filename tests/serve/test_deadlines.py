"""Requests that wait: for how long, and how many."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest

from ..waiting import until_soon
from .answers import check
from .harness import Harness

pytestmark = pytest.mark.anyio

LONG = ["a"] * 1000
Leap = Callable[[float], None]


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Leap:
    """Makes deadlines come nearer by some seconds: moves the clock of every module of the server."""
    offset = 0.0

    def forward(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    def moved() -> float:
        return perf_counter() + offset

    monkeypatch.setattr("time.perf_counter", moved)
    for name, module in list(sys.modules.items()):
        if name.startswith("arraylstm_serve") and hasattr(module, "perf_counter"):
            monkeypatch.setattr(module, "perf_counter", moved)
    return forward


async def queued(harness: Harness, request: Coroutine[Any, Any, httpx.Response]) -> asyncio.Task[httpx.Response]:
    """A request that waits behind those that are pending already."""
    before = harness.service.pending
    waiting = asyncio.create_task(request)
    await until_soon(lambda: harness.service.pending != before)
    return waiting


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/sessions/u/events", {"items": ["b"]}),
        ("GET", "/v1/sessions/u/predictions", None),
        ("GET", "/v1/sessions/u/state", None),
        ("DELETE", "/v1/sessions/u", None),
    ],
)
async def test_a_request_that_waited_too_long_is_not_applied(
    harness: Harness, leap: Leap, method: str, path: str, body: Any
) -> None:
    """Behind a walk longer than request_timeout a request is answered 503, and the session stands where the walk ends.

    Without the check at its turn, the request would be applied though its client was told, or thinks, that it was not.
    """
    walking = await queued(harness, harness.send("u", *LONG))
    await asyncio.sleep(0)  # its first item is stepped
    waiting = await queued(harness, harness.client.request(method, path, json=body))
    leap(31)
    late = await waiting
    assert (await walking).json()["step"] == 1000  # what has begun is finished, however long it takes
    check(late, "deadline_exceeded")
    assert int(late.headers["retry-after"]) >= 1
    assert (await harness.client.get("/v1/sessions/u")).json()["step"] == 1000
    assert (await harness.send("u", "b", expected_step=1000)).json()["step"] == 1001


async def test_a_late_request_leaves_its_key_free(harness: Harness, leap: Leap) -> None:
    """The retry of a request that came too late, under its key, is applied, once."""
    walking = await queued(harness, harness.send("u", *LONG))
    await asyncio.sleep(0)
    waiting = await queued(harness, harness.send("u", "b", key="k"))
    leap(31)
    check(await waiting, "deadline_exceeded")
    await walking
    for _ in range(2):
        assert (await harness.send("u", "b", key="k")).json()["step"] == 1001


@pytest.mark.parametrize("items", [["a"], ["a", "b"]])
async def test_a_session_that_would_begin_too_late_does_not(bundle_path: Path, leap: Leap, items: list[str]) -> None:
    """Events that wait for their batch beyond the deadline begin no session, move none, and take no slot."""
    harness = Harness(bundle_path, max_batch=1)
    await harness.send("held", "a")
    free = harness.service.model.slots.free
    before = [asyncio.create_task(harness.send(f"s{n}", "a")) for n in range(60)]
    await until_soon(lambda: harness.service.pending >= 40)
    waiting = [await queued(harness, harness.send(name, *items)) for name in ("u", "held")]
    waiting.append(await queued(harness, harness.client.post("/v1/predict", json={"items": items})))
    leap(31)
    for late in await asyncio.gather(*waiting):
        check(late, "deadline_exceeded")
    begun = [response.status_code for response in await asyncio.gather(*before)].count(200)
    assert begun < 60
    assert (await harness.client.get("/v1/sessions/u")).status_code == 404
    assert (await harness.client.get("/v1/sessions/held")).json()["step"] == 1
    assert harness.service.model.slots.free == free - begun


async def test_late_entries_of_a_bulk_request_say_so(bundle_path: Path, leap: Leap) -> None:
    """Of a bulk request too long for the deadline the first events are applied, the last ones refused as late."""
    harness = Harness(bundle_path, max_batch=2)
    events = [{"session_id": f"s{n}", "items": ["a"] * 10} for n in range(20)]
    runs = iter(range(100))
    harness.engine.before = lambda _: leap(31) if next(runs) == 35 else None
    found = (await harness.client.post("/v1/events", json={"events": events})).json()["results"]
    assert [result.get("code", "applied") for result in found] == ["applied"] * 8 + ["deadline_exceeded"] * 12
    assert len(harness.service.sessions) == 8


async def test_a_bulk_request_waits_for_others_no_longer_than_its_deadline(bundle_path: Path, leap: Leap) -> None:
    """Events that are late already do not wait for the places that another bulk request holds: they say so at once."""
    harness = Harness(bundle_path, max_pending=4)  # bulk requests have two places of them

    def bulk(*names: str) -> asyncio.Task[httpx.Response]:
        events = [{"session_id": name, "items": LONG} for name in names]
        return asyncio.create_task(harness.client.post("/v1/events", json={"events": events}))

    stepped: list[object] = []
    harness.engine.before = stepped.append
    late = bulk("s0", "s1", "s2")
    await until_soon(lambda: stepped)
    leap(31)
    other = bulk("s3", "s4")
    results = (await late).json()["results"]
    assert [result.get("code", "applied") for result in results] == ["applied"] * 2 + ["deadline_exceeded"]
    assert not other.done()
    assert [result["step"] for result in (await other).json()["results"]] == [1000] * 2


async def test_one_sessions_queue_is_bounded(bundle_path: Path) -> None:
    """Beyond max_session_pending a session's requests are answered 429, other sessions go on, and so does it later."""
    harness = Harness(bundle_path, max_session_pending=3)
    responses = await asyncio.gather(*(harness.send("u", "a") for _ in range(5)), harness.send("v", "a"))
    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429, 200]
    problem = check(responses[3], "session_busy")
    assert (problem["session_id"], int(responses[3].headers["retry-after"])) == ("u", 1)
    assert (await harness.send("u", "a")).json()["step"] == 4


async def test_an_overloaded_server_recovers(bundle_path: Path) -> None:
    """A storm beyond max_pending is answered 503 or in full; after it every session goes on from what was answered."""
    harness = Harness(bundle_path, max_pending=20)
    applied = dict.fromkeys((f"s{n}" for n in range(50)), 0)

    async def storm(name: str) -> None:
        for _ in range(10):
            response = await harness.send(name, "a", "b", expected_step=applied[name])
            if response.status_code == 200:
                applied[name] += 2
            else:
                check(response, "overloaded")
                await asyncio.sleep(0)

    await asyncio.gather(*map(storm, applied))
    assert 0 < sum(applied.values()) < 1000
    assert harness.service.pending == 0
    for name, step in applied.items():
        assert (await harness.send(name, "c", expected_step=step)).json()["step"] == step + 1


async def test_pending_requests_are_seen(harness: Harness) -> None:
    """Statistics tell of what waits, and are answered while it waits."""
    walking = await queued(harness, harness.send("u", *LONG))
    assert (await harness.client.get("/v1/stats")).json()["pending"] == 1
    await walking
