"""The micro-batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from arraylstm_serve.arena import Arena
from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.batcher import Batcher, NonFiniteError, Walk

pytestmark = pytest.mark.anyio
WIDTH = 4


class Recorder:
    """A model whose logits are its items, which notes each batch and fails where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fail_at: int | None = None
        self.poison: int | None = None

    def run(self, items: Integers, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Step every row."""
        self.batches.append(items.tolist())
        if len(self.batches) - 1 == self.fail_at:
            raise RuntimeError("engine on fire")
        logits = np.eye(WIDTH, dtype=np.float32)[items]
        logits[items == self.poison] = np.nan
        return logits, [state.copy() for state in states]


class Bench:
    """A batcher over a recorder; collects how each walk ended."""

    def __init__(self, max_batch: int = 8) -> None:
        self.engine = Recorder()
        self.arena = Arena(64, [], WIDTH)
        self.batcher = Batcher(self.engine, self.arena, max_batch)
        self.ended: list[tuple[int, Exception | None]] = []

    def submit(self, *items: int) -> Walk:
        """Submit a walk on a slot of its own."""
        walk = Walk(self.arena.acquire(), items, reach=1)
        self.batcher.submit(walk, lambda walk, error: self.ended.append((walk.slot, error)))
        return walk

    async def settle(self, walks: int) -> None:
        """Wait until that many walks have ended."""
        while len(self.ended) < walks:
            await asyncio.sleep(0)


async def test_what_waits_is_stepped_together() -> None:
    """Walks submitted in one round of the loop share one run of the model."""
    bench = Bench()
    for item in (0, 1, 2):
        bench.submit(item)
    await bench.settle(3)
    assert bench.engine.batches == [[0, 1, 2]]


async def test_a_batch_is_bounded_and_long_walks_interleave() -> None:
    """No batch exceeds max_batch, and walks of many items take turns in the order they came."""
    bench = Bench(max_batch=2)
    for items in ((0, 0, 0), (1, 1), (2,)):
        bench.submit(*items)
    await bench.settle(3)
    assert bench.engine.batches == [[0, 1], [2, 0], [1, 0]]
    assert [slot for slot, _ in bench.ended] == [2, 1, 0]


async def test_the_loop_runs_between_batches() -> None:
    """Other work of the event loop gets its turn before a long walk has ended."""
    bench = Bench()
    bench.submit(*[0] * 100)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not bench.ended
    assert len(bench.engine.batches) <= 10
    await bench.settle(1)


async def test_a_failing_batch_fails_its_own_walks_only(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that raises is answered to each of its walks, stores nothing, and later work goes on."""
    bench = Bench(max_batch=2)
    bench.engine.fail_at = 0
    doomed = [bench.submit(0), bench.submit(1, 1)]
    fine = bench.submit(2, 3)
    await bench.settle(3)
    errors = dict(bench.ended)
    assert [str(errors[walk.slot]) for walk in doomed] == ["engine on fire"] * 2
    assert errors[fine.slot] is None
    assert fine.ranking.ids == [3]
    assert [bench.arena.steps[walk.slot] for walk in (*doomed, fine)] == [0, 0, 2]
    assert "a batch of 2 rows failed" in caplog.text


async def test_a_row_that_is_not_finite_fails_alone() -> None:
    """Logits that are not numbers fail their own walk and leave its slot as it was; its neighbours go on."""
    bench = Bench()
    bench.engine.poison = 3
    good, bad = bench.submit(0, 1), bench.submit(0, 3, 1)
    await bench.settle(2)
    errors = dict(bench.ended)
    assert errors[good.slot] is None
    assert isinstance(errors[bad.slot], NonFiniteError)
    assert [bench.arena.steps[walk.slot] for walk in (good, bad)] == [2, 1]


async def test_only_the_first_item_of_a_slot_is_unforeseen() -> None:
    """A fresh slot's first item has no probability; later ones have that of the logits before them."""
    bench = Bench()
    walk = bench.submit(0, 0, 1)
    await bench.settle(1)
    likely = np.e / (np.e + WIDTH - 1)
    assert walk.seen[0] == (None, None)
    assert walk.seen[1] == (pytest.approx(likely), 1)
    assert walk.seen[2] == (pytest.approx(likely / np.e), 2)
