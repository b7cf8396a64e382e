"""The micro-batcher."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import pytest

from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.counters import Counters
from arraylstm_serve.engine.batcher import Batcher, Walk
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.ranking import Selection
from arraylstm_serve.engine.slots import INITIAL, Slots

from ..waiting import until_soon

pytestmark = pytest.mark.anyio
WIDTH = 4


class Recorder:
    """A graph whose logits are its items, one-hot. It notes each batch, and fails at a batch or an item if told to."""

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
        self.slots = Slots(64)
        self.counters = Counters()
        self.host = HostEngine(self.engine, 64, [], WIDTH)  # type: ignore[arg-type]
        self.batcher = Batcher(self.host, self.counters, max_batch, self.finished)
        self.ended: list[Walk] = []

    def submit(self, *items: int, patience: float = 60, client: str = "") -> Walk:
        """Submit a walk on a slot of its own."""
        now = perf_counter()
        walk = Walk(self, INITIAL, self.slots.acquire(), items, Selection.of(1, WIDTH), client, now, now + patience)
        self.batcher.submit(walk)
        return walk

    def finished(self, walks: Sequence[Walk]) -> None:
        """Note which walks have ended."""
        self.ended += walks

    async def settle(self, walks: int) -> None:
        """Wait until that many walks have ended."""
        await until_soon(lambda: len(self.ended) >= walks)


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
    walks = [bench.submit(*items) for items in ((0, 0, 0), (1, 1), (2,))]
    await bench.settle(3)
    assert bench.engine.batches == [[0, 1], [2, 0], [1, 0]]
    assert bench.ended == walks[::-1]


async def test_the_loop_runs_between_batches() -> None:
    """Other work of the event loop gets its turn before a long walk has ended."""
    bench = Bench()
    bench.submit(*[0] * 100)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not bench.ended
    assert len(bench.engine.batches) <= 10
    await bench.settle(1)


async def test_a_clients_long_walks_do_not_hold_up_anothers() -> None:
    """Of walks that have begun, clients are in turn too: one of five items takes few batches, however many others."""
    bench = Bench(max_batch=4)
    for _ in range(40):
        bench.submit(*[0] * 50, client="many")
    await until_soon(lambda: len(bench.engine.batches) > 20)
    before = len(bench.engine.batches)
    one = bench.submit(*[1] * 5, client="one")
    await bench.settle(1)
    assert bench.ended == [one]
    assert len(bench.engine.batches) - before <= 8


async def test_a_failing_batch_fails_its_own_walks_only(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that raises is the error of each of its walks, and later work goes on."""
    bench = Bench(max_batch=2)
    bench.engine.fail_at = 0
    doomed = [bench.submit(0), bench.submit(1, 1)]
    fine = bench.submit(2, 3)
    await bench.settle(3)
    assert [walk.fault for walk in doomed] == ["failed"] * 2
    assert fine.fault is None
    assert fine.ranking.ids == [3]
    assert [walk.position for walk in (*doomed, fine)] == [0, 0, 2]
    assert "a batch of 2 rows failed" in caplog.text


async def test_a_row_that_is_not_finite_fails_alone() -> None:
    """Logits that are not finite fail their own walk and stop it where it was; the others of the batch go on."""
    bench = Bench()
    bench.engine.poison = 3
    good, bad = bench.submit(0, 1), bench.submit(0, 3, 1)
    await bench.settle(2)
    assert good.fault is None
    assert bad.fault == "failed"
    assert [walk.position for walk in (good, bad)] == [2, 1]


async def test_only_the_first_item_of_a_slot_is_unforeseen() -> None:
    """A session's first item has no probability; later ones have the one that the logits before them give."""
    bench = Bench()
    walk = bench.submit(0, 0, 1)
    await bench.settle(1)
    likely = np.e / (np.e + WIDTH - 1)
    assert walk.observed[0] == (None, None)
    assert walk.observed[1] == (pytest.approx(likely), 1)
    assert walk.observed[2] == (pytest.approx(likely / np.e), 2)


async def test_a_walk_leaves_where_it_began_as_it_was() -> None:
    """A walk from another slot reads that slot, and writes only its own."""
    bench = Bench()
    first = bench.submit(0, 1)
    await bench.settle(1)
    now = perf_counter()
    items = [1, 2]
    second = Walk(bench, first.target, bench.slots.acquire(), items, Selection.of(1, WIDTH), "", now, now + 60)
    bench.batcher.submit(second)
    await bench.settle(2)
    rows = bench.host.read(np.array([INITIAL, first.target, second.target]))["logits"]
    assert rows.argmax(1).tolist()[1:] == [1, 2]
    assert not rows[0].any()
    assert second.observed[0] == (pytest.approx(np.e / (np.e + WIDTH - 1)), 1)


async def test_a_walk_that_waited_too_long_does_not_begin() -> None:
    """A walk whose deadline has passed steps nothing and ends with an error; the other walk is stepped."""
    bench = Bench(max_batch=1)
    fine, late = bench.submit(0), bench.submit(1, patience=-1)
    await bench.settle(2)
    assert fine.fault is None
    assert late.fault == "late"
    assert late.position == 0
    assert bench.counters.batch_rows.counts[0] == 1


async def test_a_failed_walk_leaves_nothing_behind() -> None:
    """Walks that failed are freed with their batch: no traceback keeps them."""
    bench = Bench(max_batch=4)
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged, tracebacks included
    try:
        for batch in range(5):
            bench.engine.fail_at = batch
            for _ in range(4):
                bench.submit(0)
            await bench.settle(4)
            assert [walk.fault for walk in bench.ended] == ["failed"] * 4
            bench.ended.clear()
    finally:
        logging.disable(logging.NOTSET)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is Walk and thing.owner is bench]
