"""/metrics and /v1/stats: what the server says of itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from arraylstm_serve import __version__

from .bundles import FINGERPRINT, write_bundle
from .harness import Harness

pytestmark = pytest.mark.anyio

EVENTS = "/v1/sessions/{session_id}/events"


async def families(harness: Harness) -> dict[str, Metric]:
    """The metrics of now, read by Prometheus' own parser."""
    response = await harness.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


async def samples(harness: Harness) -> dict[str, float]:
    """The value of each sample, by its name and labels."""
    found = {}
    for family in (await families(harness)).values():
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return {name.removeprefix("arraylstm_"): value for name, value in found.items()}


async def live(harness: Harness) -> None:
    """A bit of everything: 6 applied events, a replay, two conflicts, evictions of both kinds, a restored state."""
    await harness.send("u", "a", "b", key="k")
    await harness.send("u", "a", "b", key="k")
    await harness.send("u", "c", expected_step=9)
    await harness.send("nobody", "c", expected_step=9)
    for name in ("v", "w"):
        await harness.send(name, "a")
    state = await harness.client.get("/v1/sessions/w/state")
    await harness.client.put("/v1/sessions/w/state", content=state.content)
    events = [{"session_id": name, "items": ["a"]} for name in ("v", "w")]
    await harness.client.post("/v1/events", json={"events": events})
    harness.clock.now += 2000
    await harness.send("x", "e")
    await harness.send("x", "zebra")
    await harness.client.post("/v1/predict", json={"items": ["a", "b"]})
    await harness.client.get("/nowhere/secret")


@pytest.fixture
async def lived(bundle_path: Path) -> Harness:
    """A server of two sessions after that."""
    harness = Harness(bundle_path, max_sessions=2)
    await live(harness)
    return harness


async def test_counters_agree_with_what_was_done(lived: Harness) -> None:
    """Each counter has exactly the number of the things that happened."""
    found = await samples(lived)
    expected = {
        "session_events_total": 6,
        "unknown_items_total": 0,
        "idempotent_replays_total": 1,
        "step_conflicts_total": 2,
        "sessions_restored_total": 1,
        "sessions_evicted_total{reason=room}": 1,
        "sessions_evicted_total{reason=expired}": 2,
        "sessions_evicted_total{reason=answers}": 0,
        "sessions_active": 1,
        "sessions_limit": 2,
        "requests_pending": 0,
        "remembered_answer_bytes": 0,
        f"requests_total{{code=200,route={EVENTS}}}": 5,
        f"requests_total{{code=409,route={EVENTS}}}": 1,
        f"requests_total{{code=410,route={EVENTS}}}": 1,
        f"requests_total{{code=422,route={EVENTS}}}": 1,
        f"request_duration_seconds_count{{route={EVENTS}}}": 8,
        "requests_total{code=200,route=/v1/events}": 1,
        "requests_total{code=200,route=/v1/predict}": 1,
        "requests_total{code=200,route=/v1/sessions/{session_id}/state}": 2,
        "requests_total{code=404,route=other}": 1,
        "batch_size_sum": 9,
        "queue_wait_seconds_count": 7,
        f"build_info{{version={__version__}}}": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["batch_size_count"] == found["inference_duration_seconds_count"] == 8
    assert found[f"model_info{{cell=tiny,fingerprint={FINGERPRINT},items=7,provider=CPUExecutionProvider}}"] == 1


async def test_statistics_agree_with_the_metrics(lived: Harness) -> None:
    """/v1/stats tells the same figures as /metrics."""
    found, stats = await samples(lived), (await lived.client.get("/v1/stats")).json()
    assert stats["evicted"] == {
        reason: found[f"sessions_evicted_total{{reason={reason}}}"] for reason in ("expired", "room", "answers")
    }
    for name, sample in {
        "events_total": "session_events_total",
        "unknown_items_total": "unknown_items_total",
        "replays_total": "idempotent_replays_total",
        "conflicts_total": "step_conflicts_total",
        "sessions": "sessions_active",
        "max_sessions": "sessions_limit",
        "pending": "requests_pending",
        "batches_total": "batch_size_count",
        "steps_total": "batch_size_sum",
        "busy_seconds_total": "inference_duration_seconds_sum",
    }.items():
        assert stats[name] == found[sample], name
    requests = sum(value for name, value in found.items() if name.startswith("requests_total{"))
    assert stats["requests_total"] == requests + 1  # the one for the metrics themselves
    assert (stats["draining"], stats["uptime_seconds"], stats["model"]) == (False, 2000, FINGERPRINT)


async def test_counters_never_go_back(harness: Harness) -> None:
    """Whatever happens, what is a counter only grows."""
    before: dict[str, float] = {}
    for _ in range(3):
        await live(harness)
        now = {
            sample.name + str(sample.labels): sample.value
            for family in (await families(harness)).values()
            for sample in family.samples
            if family.type in {"counter", "histogram"}
        }
        assert all(now[name] >= value for name, value in before.items())
        before = now


async def test_names_and_units_follow_prometheus_conventions(lived: Harness) -> None:
    """Names have one prefix and base units, counters end in _total, everything has a help text."""
    for name, family in (await families(lived)).items():
        assert re.fullmatch("(arraylstm|process)_[a-z_]+", name)
        assert family.documentation
        assert not re.search("milli|micro|_ms|percent|minutes|_count$", name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples if "_created" not in sample.name} <= {f"{name}_total"}
        if re.search("duration|wait|uptime", name):
            assert name.endswith("_seconds")
        if family.type == "histogram":
            check_histogram(family)


def check_histogram(family: Metric) -> None:
    """Buckets grow up to the count, and the sum is there."""
    buckets: dict[str, list[tuple[float, float]]] = {}
    for sample in family.samples:
        rest = str({name: value for name, value in sample.labels.items() if name != "le"})
        if sample.name.endswith("_bucket"):
            buckets.setdefault(rest, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_count"):
            assert buckets[rest][-1] == (float("inf"), sample.value)
            assert buckets[rest] == sorted(buckets[rest])
            assert [value for _, value in buckets[rest]] == sorted(value for _, value in buckets[rest])
    assert buckets


async def test_labels_tell_of_no_session_and_stay_few(bundle_path: Path) -> None:
    """However many sessions, items and paths are asked for, the metrics grow no further, and name none of them."""
    harness = Harness(bundle_path)

    async def ask(number: int) -> None:
        name = f"secret{number}"
        await harness.send(name, "a", key=name)
        await harness.send(name, name)
        await harness.client.get(f"/v1/sessions/{name}/state")
        await harness.client.get(f"/v1/sessions/{name}?x={name}")
        await harness.client.get(f"/v1/{name}", headers={"X-Request-ID": name})
        await harness.client.request("PATCH", f"/v1/sessions/{name}/events")
        await harness.client.request(f"SECRET{number}", "/v1/model")

    await ask(0)
    few = len((await harness.client.get("/metrics")).text.splitlines())
    few = len((await harness.client.get("/metrics")).text.splitlines())  # the first one is counted now
    await asyncio.gather(*map(ask, range(1, 40)))
    text = (await harness.client.get("/metrics")).text
    assert "secret" not in text.lower()
    assert len(text.splitlines()) == few


async def test_sessions_that_expired_are_not_counted_as_held(bundle_path: Path) -> None:
    """On a server that nobody asks anything else, sessions expire from the figures when their time is over."""
    harness = Harness(bundle_path, session_ttl=100)
    await harness.send("u", "a")
    harness.clock.now += 100
    stats = (await harness.client.get("/v1/stats")).json()
    assert (stats["sessions"], stats["evicted"]) == (0, {"expired": 1, "room": 0, "answers": 0})
    await harness.send("u", "a")
    harness.clock.now += 100
    found = await samples(harness)
    assert (found["sessions_active"], found["sessions_evicted_total{reason=expired}"]) == (0, 2)


@pytest.mark.parametrize(("policy", "status"), [("model", 200), ("reject", 422)])
async def test_the_policy_for_unknown_items_is_the_operators(tmp_path: Path, policy: Any, status: int) -> None:
    """Where the model has an unknown item, `model` lets it stand in for an unlisted one, and `reject` refuses that."""
    harness = Harness(write_bundle(tmp_path / "bundle", unknown="e"), unknown_items=policy)
    assert (await harness.send("u", "a", "e")).status_code == 200
    response = await harness.send("u", "zebra")
    assert response.status_code == status
    predict = await harness.client.post("/v1/predict", json={"items": ["zebra"]})
    events = {"events": [{"session_id": "v", "items": ["zebra"]}]}
    bulk = (await harness.client.post("/v1/events", json=events)).json()["results"][0]
    assert (predict.status_code, bulk.get("status", 200)) == (status, status)
    if status == 422:
        assert "allowed are the model's 7 labels" in response.json()["detail"]
    refused = await harness.send("u", "a", exclude=["zebra"])
    assert refused.json()["code"] == "unknown_item"
