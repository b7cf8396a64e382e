"""What a client excludes is forgotten with its answer: memory does not grow with the sets that clients think of."""

from __future__ import annotations

import gc
import random
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from ..harness import Harness
from ..wide import write_wide_bundle

pytestmark = pytest.mark.anyio

ITEMS = 2000
EVENTS, EXCLUDED = 100, 200
"""Events in a request, and the items that each excludes: a set of that many ids takes 14 KB."""


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    """A server of a model of many items without labels."""
    return Harness(write_wide_bundle(tmp_path / "many", ITEMS))


async def ask(harness: Harness, rng: random.Random, requests: int) -> int:
    """Send bulk requests in which each event excludes another set; return the bytes held afterwards."""
    for _ in range(requests):
        sets = [rng.sample(range(ITEMS), EXCLUDED) for _ in range(EVENTS)]
        events = [{"session_id": "u", "items": [1], "top_k": 1, "exclude": exclude} for exclude in sets]
        answer = await harness.client.post("/v1/events", content=msgspec.json.encode({"events": events}))
        for result, exclude in zip(msgspec.json.decode(answer.content)["results"], sets, strict=True):
            assert result["predictions"][0]["item"] not in exclude
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_excluded_sets_are_not_kept(harness: Harness) -> None:
    """After thousands of different sets the server holds no more than after some."""
    rng = random.Random(1)
    tracemalloc.start()
    try:
        before = await ask(harness, rng, 2)
        after = await ask(harness, rng, 20)
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000  # to keep them all would take 28 MB
