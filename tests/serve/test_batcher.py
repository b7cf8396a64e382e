"""The micro-batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import pytest

from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.counters import Figures
from arraylstm_serve.engine.batcher import Batcher, LateError, NonFiniteError, Walk
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.slots import Arena

pytestmark = pytest.mark.anyio
WIDTH = 4


class Recorder:
    """A graph whose logits are its items, which notes each batch and fails where it is told to."""

    provider = "CPUExecutionProvider"

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
        self.arena = Arena(HostEngine(self.engine, 64, [], WIDTH), 64)  # type: ignore[arg-type]
        self.figures = Figures()
        self.batcher = Batcher(self.arena, self.figures, max_batch)
        self.ended: list[tuple[int, Exception | None]] = []

    def submit(self, *items: int, patience: float = 60) -> Walk:
        """Submit a walk on a slot of its own."""
        now = perf_counter()
        walk = Walk(self, self.arena.acquire(), items, 1, now, now + patience)
        self.batcher.submit(walk)
        return walk

    def walked(self, walk: Walk, error: Exception | None) -> None:
        """Note how a walk ended."""
        self.ended.append((walk.slot, error))

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


async def test_a_walk_that_waited_too_long_does_not_begin() -> None:
    """A walk whose deadline has passed moves nothing and is told so; one that has begun goes on."""
    bench = Bench(max_batch=1)
    fine, late = bench.submit(0), bench.submit(1, patience=-1)
    await bench.settle(2)
    errors = dict(bench.ended)
    assert errors[fine.slot] is None
    assert isinstance(errors[late.slot], LateError)
    assert bench.arena.steps[late.slot] == 0
    assert bench.figures.batch_rows.counts[0] == 1
