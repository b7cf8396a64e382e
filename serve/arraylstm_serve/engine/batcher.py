"""The micro-batcher: it steps all waiting walks together, at once, without timers or threads."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from arraylstm_serve.counters import Counters
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.ranking import NOTHING, Ranking, Selection
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.fairness import Rounds
from arraylstm_serve.heavy import LIGHT_ANSWER

Observed = tuple[float | None, int | None]
"""The probability and rank that the model gave to an item before the session consumed it."""

UNPREDICTED: Observed = (None, None)
"""The value for a session's first item, for which the model had predicted nothing."""

BEGUN = 0.25
"""The part of the batches' places that is kept for walks that have begun, as long as there are any."""

logger = logging.getLogger(__name__)


Fault = Literal["late", "failed"]
"""Why a walk stopped early: its deadline passed before its first step, or a step failed, which the log explains.

A word and not the exception: a traceback refers to the batch that raised it, and so to the walk.
"""


class Walk(Struct):
    """The items of one request, stepped one after the other: one item in each batch.

    The first step reads `source` and writes `target`; the later steps read and write `target`.

    Attributes:
        owner: what the walk belongs to, a turn; the batcher does not look at it.
        source: the slot to start from; it does not change.
        target: the slot to write; no other walk uses it.
        items: item ids, at least one.
        selection: the predictions wanted after the last step.
        client: who asked, for fairness.
        arrived: when the request arrived, by perf_counter.
        deadline: the latest time for the first step, by perf_counter.
        position: how many items have been stepped.
        observed: the probability and rank of each stepped item.
        ranking: the most likely next items after the last step; nothing if the answer is long (see `heavy`).
        fault: why the walk stopped early; None if it did not.
        values: how many numbers the answer has besides predictions and observations.
    """

    owner: Any
    source: int
    target: int
    items: Sequence[int]
    selection: Selection
    client: str
    arrived: float
    deadline: float
    position: int = 0
    observed: list[Observed] = []
    ranking: Ranking = NOTHING
    fault: Fault | None = None
    values: int = 0

    @property
    def heavy(self) -> bool:
        """Whether the answer is long, so that it is ranked and written in pieces after the walk."""
        return self.selection.depth + len(self.items) + self.values > LIGHT_ANSWER

    @property
    def depth(self) -> int:
        """How many items the next step has to rank."""
        return 0 if self.heavy or self.position + 1 < len(self.items) else self.selection.depth


class Batcher:
    """Steps walks together and fairly.

    Walks that have not begun come first, and leave a part of the batch to those that have begun: so a short walk is not
    held up by long ones. Of either kind clients are in turn, so that none is held up by another's many. An unfinished
    walk goes back behind its client's others.

    The first walk submitted schedules a batch for the event loop's next round; walks submitted until then join it.
    Each run steps one batch and schedules the next one, so the event loop stays responsive.

    Args:
        engine: steps the rows.
        counters: they count runs and waiting times.
        max_batch: the most walks in one run.
        finished: called after a run with the walks that have ended, with or without an error.
    """

    def __init__(
        self, engine: Engine, counters: Counters, max_batch: int, finished: Callable[[Sequence[Walk]], None]
    ) -> None:
        self._engine = engine
        self._counters = counters
        self._max_batch = max_batch
        self._finished = finished
        self._new: Rounds[Walk] = Rounds()
        self._begun: Rounds[Walk] = Rounds()
        self._owed = 0.0
        """Places that walks that have begun may claim."""
        self._scheduled = False

    def submit(self, walk: Walk) -> None:
        """Queue a walk."""
        self._new.append(walk.client, walk)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        get_running_loop().call_soon(self._gather, 0)

    def _gather(self, before: int) -> None:
        """Run a batch. If the loop's last round brought more walks and the batch has room, wait another round first."""
        waiting = len(self._new) + len(self._begun)
        if before < waiting < self._max_batch:
            get_running_loop().call_soon(self._gather, waiting)
        else:
            self._run()

    def _run(self) -> None:
        self._scheduled = False
        began = perf_counter()
        batch, ended = self._next_batch(began)
        if batch:
            self._step(batch)
            self._counters.run_seconds.observe(perf_counter() - began)
            self._counters.batch_rows.observe(len(batch))
            for walk in batch:
                if walk.fault is not None or walk.position == len(walk.items):
                    ended.append(walk)
                else:
                    self._begun.append(walk.client, walk)
        if ended:
            try:
                self._finished(ended)
            except Exception:
                logger.exception("%d finished walks could not be handed over", len(ended))
        if (self._new or self._begun) and not self._scheduled:
            self._schedule()

    def _next_batch(self, now: float) -> tuple[list[Walk], list[Walk]]:
        """Return the walks to step now, and the walks that are too late to begin."""
        new, begun, waited = self._new, self._begun, self._counters.queue_seconds
        batch: list[Walk] = []
        late: list[Walk] = []
        self._owed = min(self._owed + self._max_batch * BEGUN, self._max_batch)
        places = self._max_batch - min(len(begun), int(self._owed))
        while new and len(batch) < places:
            walk = new.popleft()
            if walk.deadline < now:
                walk.fault = "late"
                late.append(walk)
            else:
                waited.observe(now - walk.arrived)
                batch.append(walk)
        fresh = len(batch)
        while begun and len(batch) < self._max_batch:
            batch.append(begun.popleft())
        self._owed = max(0.0, self._owed - (len(batch) - fresh))
        return batch, late

    def _step(self, batch: list[Walk]) -> None:
        """Step each walk by one item."""
        try:
            step = self._engine.step(
                np.array([walk.target if walk.position else walk.source for walk in batch]),
                np.array([walk.target for walk in batch]),
                np.array([walk.items[walk.position] for walk in batch]),
                [walk.depth for walk in batch],
            )
        except Exception:
            logger.exception("a batch of %d rows failed", len(batch))
            for walk in batch:
                walk.fault = "failed"
            return
        observations = zip(step.probabilities.tolist(), step.ranks.tolist(), strict=True)
        for walk, observed, finite, ranking in zip(
            batch, observations, step.finite.tolist(), step.rankings, strict=True
        ):
            if not finite:
                logger.error("the model gave logits that are not finite for item id %d", walk.items[walk.position])
                walk.fault = "failed"
                continue
            walk.observed.append(observed if walk.position or walk.source != INITIAL else UNPREDICTED)
            walk.position += 1
            walk.ranking = ranking
