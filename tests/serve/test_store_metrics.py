"""What /metrics says of the store of sessions, and that it says nothing of one that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from arraylstm_serve.stores.base import Failed
from arraylstm_serve.stores.sqlite import SqliteStore

from ..waiting import until_soon
from .answers import check
from .harness import Harness
from .test_durable import Store, server
from .test_metrics import families, samples

pytestmark = pytest.mark.anyio

STORE = ("store_", "sessions_rewound", "sessions_unloaded")


async def test_without_a_store_there_is_nothing_of_one(harness: Harness) -> None:
    """A server that keeps sessions in its memory has evictions, and no metric of a store."""
    await harness.send("u", "a")
    found = await samples(harness)
    assert [name for name in found if name.startswith(STORE)] == []
    assert found["sessions_evicted_total{reason=room}"] == 0


async def test_the_store_is_counted_as_it_was_used(bundle_path: Path) -> None:
    """Loads, commits and bytes agree with what was done; every outcome is there from the start."""
    store = Store()
    one, other = server(bundle_path, store), server(bundle_path, store)
    before = await samples(one)
    for name in ("loads", "commits"):
        outcomes = ("found", "missing") if name == "loads" else ("applied", "stale")
        assert [before[f"store_{name}_total{{outcome={outcome}}}"] for outcome in (*outcomes, "failed")] == [0, 0, 0]
    await one.send("u", "a")  # missing, applied
    await other.send("u", "b")  # found, applied
    await one.send("u", "c")  # stale, found, applied
    found = await samples(one)
    expected = {
        "store_up": 1,
        "sessions_rewound_total": 0,
        "store_loads_total{outcome=found}": 2,
        "store_loads_total{outcome=missing}": 1,
        "store_commits_total{outcome=applied}": 3,
        "store_commits_total{outcome=stale}": 1,
        "store_operation_duration_seconds_count{operation=load}": 3,
        "store_operation_duration_seconds_count{operation=commit}": 4,
        "store_written_bytes_total": store.counters.bytes_written,
        "store_read_bytes_total": store.counters.bytes_read,
        "store_swept_records_total": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert store.counters.bytes_written > store.counters.bytes_read > 0


async def test_a_store_that_fails_shows(bundle_path: Path) -> None:
    """The gauge is 0 while the store cannot be used, and 1 again after; what failed is counted."""
    store = Store(shared=False)
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    store.broken = Failed("nobody answers")
    check(await harness.send("u", "b"), "store_unavailable")
    check(await harness.send("v", "b"), "store_unavailable")
    found = await samples(harness)
    assert found["store_up"] == 0
    assert found["store_commits_total{outcome=failed}"] == found["store_loads_total{outcome=failed}"] == 1
    store.broken = None
    await harness.send("u", "b")
    assert (await samples(harness))["store_up"] == 1


async def test_lost_steps_show(bundle_path: Path) -> None:
    """A session of which the store has lost steps is counted once."""
    store = Store()
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    older = dict(store._records)
    await harness.send("u", "b")
    store._records = older
    check(await harness.send("u", "c"), "session_rewound")
    await harness.send("u", "c")
    assert (await samples(harness))["sessions_rewound_total"] == 1


async def test_a_session_that_leaves_the_memory_is_not_lost(bundle_path: Path) -> None:
    """With a store, sessions that need room are unloaded, not evicted, and go on where they stood."""
    harness = server(bundle_path, Store(shared=False), max_sessions=2)
    for name in ("u", "v", "w", "u"):
        answer = (await harness.send(name, "a")).json()
    assert (answer["step"], answer["state"]) == (2, "continued")
    found = await samples(harness)
    assert found["sessions_unloaded_total{reason=room}"] == 2
    assert [name for name in found if name.startswith("sessions_evicted")] == []


async def test_names_follow_the_conventions_with_a_store(bundle_path: Path) -> None:
    """A counter ends in _total, a duration in seconds, bytes are bytes, and all have a text."""
    harness = server(bundle_path, Store())
    await harness.send("u", "a")
    found = await families(harness)
    of_store = {name: family for name, family in found.items() if name.startswith("arraylstm_store")}
    assert len(of_store) == 7
    for name, family in of_store.items():
        assert family.documentation
        assert family.type != "counter" or all(sample.name == f"{name}_total" for sample in family.samples)
    assert of_store["arraylstm_store_operation_duration_seconds"].type == "histogram"


async def test_records_that_are_swept_are_counted(bundle_path: Path, tmp_path: Path) -> None:
    """SQLite's expired records, once removed, show."""
    now = [1e9]
    store = await SqliteStore.open(tmp_path / "s.db", durable=True, ttl=100, clock=lambda: now[0])
    harness = Harness(bundle_path)
    harness.service.keep(store)
    await asyncio.gather(harness.send("u", "a"), harness.send("v", "a"))
    now[0] += 200
    await store.sweep()
    found = await samples(harness)
    assert found["store_swept_records_total"] == 2
    assert found["store_operation_duration_seconds_count{operation=sweep}"] == 1
    await harness.service.close()


async def test_what_the_store_lacks_shows_where_answers_leave_first(bundle_path: Path) -> None:
    """With --ack memory the sessions that wait for the store are counted, and those lost to another server."""
    store = Store(shared=False)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory")
    await harness.send("u", "a")
    await until_soon(lambda: harness.service.unsaved == 0)
    store.gate.clear()
    await harness.send("u", "b")
    found = await samples(harness)
    assert (found["sessions_unsaved"], found["sessions_lost_total"]) == (1, 0)
    store.gate.set()
    await until_soon(lambda: harness.service.unsaved == 0)
    assert (await samples(harness))["sessions_unsaved"] == 0
    other = server(bundle_path, store)
    await other.send("u", "b")
    await harness.send("u", "c")
    await until_soon(lambda: harness.service.unsaved == 0)
    assert (await samples(harness))["sessions_lost_total"] == 1
    assert [name for name in await samples(other) if "unsaved" in name or "lost" in name] == []
