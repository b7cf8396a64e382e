"""The micro-batcher: all walks that wait are stepped together, at once, without timers or threads."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from msgspec import Struct

from arraylstm_serve.counters import Figures
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.ranking import NOTHING, Ask, Ranking
from arraylstm_serve.engine.slots import INITIAL

Seen = tuple[float | None, int | None]
"""An item's probability and rank before it was consumed."""

UNSEEN: Seen = (None, None)
"""What stands for them where an item is the first of all."""

logger = logging.getLogger(__name__)


class NonFiniteError(ArithmeticError):
    """The model gave a row logits that are not finite numbers."""


class LateError(Exception):
    """The walk's deadline passed before its first step."""


class Walk(Struct, gc=False):
    """Items stepped one after the other, one a batch: the first from `source` to `target`, the others on `target`.

    Attributes:
        owner: whom the walk belongs to; the batcher does not look at it.
        source: the slot to start from, which stays as it is.
        target: a slot that no other walk has.
        items: item ids, at least one.
        ask: the predictions wanted after the last step.
        arrived: when the request came, by perf_counter.
        deadline: the walk does not begin after this, by perf_counter.
        position: how many items have been stepped.
        seen: what the model had thought of each stepped item.
        ranking: the most likely items after the last step.
        error: why the walk did not reach its end, if it did not.
    """

    owner: Any
    source: int
    target: int
    items: Sequence[int]
    ask: Ask
    arrived: float
    deadline: float
    position: int = 0
    seen: list[Seen] = []
    ranking: Ranking = NOTHING
    error: Exception | None = None


class Batcher:
    """Steps walks together and fairly: an unfinished walk goes back to the end of the queue.

    The first walk submitted schedules a batch for the loop's next round, so all that the same round brings joins it.
    A run steps one batch and schedules the next one, so the loop stays responsive.

    Args:
        engine: steps the rows.
        figures: counts runs and waiting times.
        max_batch: the most walks in one run.
        finished: takes the walks of a run that are at their end, or have an error.
    """

    def __init__(
        self, engine: Engine, figures: Figures, max_batch: int, finished: Callable[[Sequence[Walk]], None]
    ) -> None:
        self._engine = engine
        self._figures = figures
        self._max_batch = max_batch
        self._finished = finished
        self._queue: deque[Walk] = deque()
        self._scheduled = False

    def submit(self, walk: Walk) -> None:
        """Queue a walk."""
        self._queue.append(walk)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        get_running_loop().call_soon(self._gather, 0)

    def _gather(self, before: int) -> None:
        """Run a batch, or look again in the loop's next round while each round brings more walks."""
        if before < len(self._queue) < self._max_batch:
            get_running_loop().call_soon(self._gather, len(self._queue))
        else:
            self._run()

    def _run(self) -> None:
        self._scheduled = False
        began = perf_counter()
        batch, ended = self._next_batch(began)
        if batch:
            self._step(batch)
            self._figures.run_seconds.observe(perf_counter() - began)
            self._figures.batch_rows.observe(len(batch))
            for walk in batch:
                if walk.error is not None or walk.position == len(walk.items):
                    ended.append(walk)
                else:
                    self._queue.append(walk)
        if ended:
            try:
                self._finished(ended)
            except Exception:
                logger.exception("%d finished walks could not be handed over", len(ended))
        if self._queue and not self._scheduled:
            self._schedule()

    def _next_batch(self, now: float) -> tuple[list[Walk], list[Walk]]:
        """The walks to step now, and those that are too late to begin."""
        queue, waited = self._queue, self._figures.queue_seconds
        batch: list[Walk] = []
        late: list[Walk] = []
        while queue and len(batch) < self._max_batch:
            walk = queue.popleft()
            if not walk.position:
                if walk.deadline < now:
                    walk.error = LateError()
                    late.append(walk)
                    continue
                waited.observe(now - walk.arrived)
            batch.append(walk)
        return batch, late

    def _step(self, batch: list[Walk]) -> None:
        """Step each walk by one item."""
        try:
            step = self._engine.step(
                np.array([walk.target if walk.position else walk.source for walk in batch]),
                np.array([walk.target for walk in batch]),
                np.array([walk.items[walk.position] for walk in batch]),
                [walk.ask.reach if walk.position + 1 == len(walk.items) else 0 for walk in batch],
            )
        except Exception as error:
            logger.exception("a batch of %d rows failed", len(batch))
            for walk in batch:
                walk.error = error
            return
        seen = zip(step.probabilities.tolist(), step.ranks.tolist(), strict=True)
        for walk, thought, fine, ranking in zip(batch, seen, step.sound.tolist(), step.rankings, strict=True):
            if not fine:
                logger.error("the model gave logits that are not finite for item id %d", walk.items[walk.position])
                walk.error = NonFiniteError()
                continue
            walk.seen.append(thought if walk.position or walk.source != INITIAL else UNSEEN)
            walk.position += 1
            walk.ranking = ranking
