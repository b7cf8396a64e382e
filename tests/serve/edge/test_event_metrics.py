"""What /metrics says of events: each counts once, under its outcome, whatever it came in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from arraylstm_serve.api.problems import INVALID_JSON
from arraylstm_serve.counters import OK

from ...waiting import until_soon
from ..harness import Harness, listening

pytestmark = pytest.mark.anyio

SENT: list[tuple[dict[str, Any], str]] = [
    ({"session_id": "u", "items": ["a"]}, OK),
    ({"session_id": "u", "items": ["b"], "idempotency_key": "k"}, OK),
    ({"session_id": "u", "items": ["b"], "idempotency_key": "k"}, OK),
    ({"session_id": "u", "items": ["c"], "idempotency_key": "k"}, "idempotency_key_reused"),
    ({"session_id": "u", "items": ["a"], "expected_step": 9}, "step_conflict"),
    ({"session_id": "v", "items": ["a"], "expected_step": 9}, "session_gone"),
    ({"session_id": "u", "items": ["zebra"]}, "unknown_item"),
]
"""Events, and the outcome of each."""


def expected(*more: str) -> dict[str, int]:
    """How many events have each outcome after SENT and some more."""
    outcomes = [outcome for _, outcome in SENT] + list(more)
    return {outcome: outcomes.count(outcome) for outcome in outcomes}


async def counted(harness: Harness) -> dict[str, int]:
    """How many events /metrics counts for each outcome; their durations must be as many."""
    text = (await harness.client.get("/metrics")).text
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    totals = {sample.labels["outcome"]: int(sample.value) for sample in families["arraylstm_events"]}
    timed = families["arraylstm_event_duration_seconds"]
    durations = {sample.labels["outcome"]: int(sample.value) for sample in timed if sample.name.endswith("_count")}
    assert durations == totals
    assert all(sample.value > 0 for sample in timed if sample.name.endswith("_sum"))
    return totals


async def post(harness: Harness, event: dict[str, Any]) -> None:
    """Send an event in a request of its own."""
    fields = dict(event)
    key = fields.pop("idempotency_key", None)
    headers = {} if key is None else {"Idempotency-Key": key}
    await harness.client.post(f"/v1/sessions/{fields.pop('session_id')}/events", json=fields, headers=headers)


async def test_events_in_requests_of_their_own(harness: Harness) -> None:
    """Each POST counts under its outcome, also one that is refused before its session is looked up."""
    for event, _ in SENT:
        await post(harness, event)
    await harness.client.post("/v1/sessions/u/events", content=b"{")
    await harness.client.post("/v1/sessions/no%20id/events", json={"items": ["a"]})
    assert await counted(harness) == expected("invalid_json", "invalid_session_id")


async def test_events_in_bulk(harness: Harness) -> None:
    """Each event of a bulk request counts by itself, though the request as a whole is 200."""
    answer = await harness.client.post("/v1/events", json={"events": [event for event, _ in SENT]})
    assert answer.status_code == 200
    assert await counted(harness) == expected()


async def test_events_over_a_stream(harness: Harness) -> None:
    """Each message of a stream counts, also one that is no event."""
    async with listening(harness) as address, connect(f"ws://{address}/v1/stream") as stream:
        for event, _ in SENT:
            await stream.send(json.dumps(event))
        await stream.send("{")
        for _ in range(len(SENT) + 1):
            await stream.recv()
        assert await counted(harness) == expected(INVALID_JSON.code)


async def test_events_of_a_sequence(harness: Harness) -> None:
    """A request of the Open Inference Protocol that moves a session is an event too."""
    tensor = {"name": "items", "shape": [1], "datatype": "INT64", "data": [0]}
    body = {"inputs": [tensor], "parameters": {"sequence_id": "u", "sequence_start": True}}
    await harness.client.post("/v2/models/arraylstm/infer", json=body)
    await harness.client.post("/v2/models/arraylstm/infer", json={"inputs": [tensor]})  # moves none
    assert await counted(harness) == {OK: 1}


async def test_events_that_found_no_place(bundle_path: Path) -> None:
    """Events that are refused at once, and those of a bulk request held back behind them, count as what they got."""
    harness = Harness(bundle_path, max_pending=1, max_session_pending=1)
    bulk = {"events": [{"session_id": "u", "items": ["a"]}] * 3}
    waiting = asyncio.create_task(harness.send("u", "a"))
    await until_soon(lambda: harness.service.pending)
    results = (await harness.client.post("/v1/events", json=bulk)).json()["results"]
    await waiting
    refused = [result["code"] for result in results if "code" in result]
    assert refused
    counts = await counted(harness)
    assert sum(counts.values()) == 4
    assert sum(count for outcome, count in counts.items() if outcome != OK) == len(refused)


async def test_what_is_no_event_is_not_counted(harness: Harness) -> None:
    """Predictions, states and the end of a session are no events."""
    await harness.send("u", "a")
    await harness.client.post("/v1/predict", json={"items": ["a"]})
    await harness.client.get("/v1/sessions/u/predictions")
    await harness.client.delete("/v1/sessions/u")
    assert await counted(harness) == {OK: 1}
