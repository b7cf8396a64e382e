"""The micro-batcher: whatever waits is stepped together, at once, without timers or threads."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from arraylstm_serve.counters import Figures
from arraylstm_serve.engine.ranking import NOTHING, Ranking
from arraylstm_serve.engine.slots import Arena, Seen

logger = logging.getLogger(__name__)


class NonFiniteError(ArithmeticError):
    """The model gave a row logits that are not finite numbers."""


class LateError(Exception):
    """The walk's deadline passed before its first step."""


class Walker(Protocol):
    """Who wants items walked, and is told how it went."""

    def walked(self, walk: Walk, error: Exception | None) -> None:
        """Take over a walk that has ended, or what went wrong with it."""


class Walk:
    """Items stepped one after the other on one slot, one a batch.

    Args:
        walker: told once when the walk has ended.
        slot: the arena's slot; no two unfinished walks share one.
        items: item ids, at least one.
        reach: how many of the most likely items to rank after the last step.
        arrived: when the request came, by perf_counter.
        deadline: by perf_counter, after which the walk does not begin.

    Attributes:
        position: how many items have been stepped.
        seen: what the model had thought of each stepped item.
        ranking: the most likely items after the last step.
    """

    __slots__ = ("arrived", "deadline", "items", "position", "ranking", "reach", "seen", "slot", "walker")

    def __init__(
        self, walker: Walker, slot: int, items: Sequence[int], reach: int, arrived: float, deadline: float
    ) -> None:
        self.walker = walker
        self.slot = slot
        self.items = items
        self.reach = reach
        self.arrived = arrived
        self.deadline = deadline
        self.position = 0
        self.seen: list[Seen] = []
        self.ranking: Ranking = NOTHING


class Batcher:
    """Steps walks together, fairly: an unfinished walk goes back to the end of the queue.

    The first walk submitted schedules a flush for the loop's next round, so everything that the same round
    brings joins the batch. A flush runs one batch and schedules the next one, so the loop stays responsive.
    """

    def __init__(self, arena: Arena, figures: Figures, max_batch: int) -> None:
        self._arena = arena
        self._figures = figures
        self._max_batch = max_batch
        self._queue: deque[Walk] = deque()
        self._scheduled = False

    def submit(self, walk: Walk) -> None:
        """Queue a walk."""
        self._queue.append(walk)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        get_running_loop().call_soon(self._look, 0)

    def _look(self, before: int) -> None:
        """Flush, or look again in the loop's next round while each round brings more."""
        if before < len(self._queue) < self._max_batch:
            get_running_loop().call_soon(self._look, len(self._queue))
        else:
            self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        began = perf_counter()
        batch = self._next_batch(began)
        if batch:
            try:
                sound = self._step(batch)
            except Exception as error:
                logger.exception("a batch of %d rows failed", len(batch))
                for walk in batch:
                    _tell(walk, error)
            else:
                self._figures.run_seconds.observe(perf_counter() - began)
                self._figures.batch_rows.observe(len(batch))
                self._settle(batch, sound)
        if self._queue and not self._scheduled:
            self._schedule()

    def _next_batch(self, now: float) -> list[Walk]:
        """The walks to step now; those that should not begin any more are told so."""
        queue, waited = self._queue, self._figures.queue_seconds
        batch: list[Walk] = []
        while queue and len(batch) < self._max_batch:
            walk = queue.popleft()
            if not walk.position:
                if walk.deadline < now:
                    _tell(walk, LateError())
                    continue
                waited.observe(now - walk.arrived)
            batch.append(walk)
        return batch

    def _step(self, batch: list[Walk]) -> list[bool]:
        """Step each walk by one item; whether each row went well. Nothing is stored if this raises."""
        seen, sound, rankings = self._arena.step(
            [walk.slot for walk in batch],
            [walk.items[walk.position] for walk in batch],
            [walk.reach if walk.position + 1 == len(walk.items) else 0 for walk in batch],
        )
        for walk, thought, fine, ranking in zip(batch, seen, sound, rankings, strict=True):
            if fine:
                walk.seen.append(thought)
                walk.position += 1
                walk.ranking = ranking
        return sound

    def _settle(self, batch: list[Walk], sound: list[bool]) -> None:
        for walk, fine in zip(batch, sound, strict=True):
            if not fine:
                logger.error("the model gave logits that are not finite for item id %d", walk.items[walk.position])
                _tell(walk, NonFiniteError())
            elif walk.position == len(walk.items):
                _tell(walk, None)
            else:
                self._queue.append(walk)


def _tell(walk: Walk, error: Exception | None) -> None:
    """Say that a walk has ended; a waiter that fails must not take the others' answers with it."""
    try:
        walk.walker.walked(walk, error)
    except Exception:
        logger.exception("a finished walk could not be handed over")
