"""The micro-batcher: whatever waits is stepped together, at once, without timers or threads."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from arraylstm_serve.arena import Arena
from arraylstm_serve.arrays import Doubles, Flags, Floats, Integers
from arraylstm_serve.predictions import NOTHING, Ranking, log_sum_exp, observe, rank

logger = logging.getLogger(__name__)

Seen = tuple[float | None, int | None]
"""An item's probability and rank before it was consumed; None for the first item of all."""


Done = Callable[["Walk", Exception | None], None]


class Stepper(Protocol):
    """What the batcher needs of an engine."""

    def run(self, items: Integers, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Step every row (B,) by one item: logits (B, V) and the next states."""


class NonFiniteError(ArithmeticError):
    """The model gave a row logits that are not finite numbers."""


@dataclass(slots=True, eq=False)
class Walk:
    """Items stepped one after the other on one slot, one a batch.

    Attributes:
        slot: the arena row; no two unfinished walks share one.
        items: item ids, at least one.
        reach: how many of the most likely items to rank after the last step.
        position: how many items have been stepped.
        seen: what the model had thought of each stepped item.
        ranking: the most likely items after the last step.
        done: called once the walk has ended.
    """

    slot: int
    items: Sequence[int]
    reach: int
    position: int = 0
    seen: list[Seen] = field(default_factory=list)
    ranking: Ranking = NOTHING
    done: Done = field(init=False)

    @property
    def last(self) -> bool:
        """Whether the next step is the last one."""
        return self.position + 1 == len(self.items)


class Batcher:
    """Steps walks together, fairly: an unfinished walk goes back to the end of the queue.

    The first walk submitted schedules a flush for the loop's next round, so everything that the same round
    brings joins the batch. A flush runs one batch and schedules the next one, so the loop stays responsive.
    """

    def __init__(self, engine: Stepper, arena: Arena, max_batch: int) -> None:
        self._engine = engine
        self._arena = arena
        self._max_batch = max_batch
        self._queue: deque[Walk] = deque()
        self._scheduled = False

    def submit(self, walk: Walk, done: Done) -> None:
        """Queue a walk; `done` is called once with it and with what went wrong, if anything."""
        walk.done = done
        self._queue.append(walk)
        self._schedule()

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
        try:
            sound = self._step(batch)
        except Exception as error:
            logger.exception("a batch of %d rows failed", len(batch))
            for walk in batch:
                _tell(walk, error)
        else:
            for walk, fine in zip(batch, sound, strict=True):
                self._settle(walk, fine)
        self._schedule()

    def _settle(self, walk: Walk, fine: bool) -> None:
        if not fine:
            logger.error("the model gave logits that are not finite for item id %d", walk.items[walk.position])
            _tell(walk, NonFiniteError())
        elif walk.position == len(walk.items):
            _tell(walk, None)
        else:
            self._queue.append(walk)

    def _step(self, batch: list[Walk]) -> list[bool]:
        """Step each walk by one item; whether each row went well. Nothing is stored if this raises."""
        slots = np.array([walk.slot for walk in batch])
        items = np.array([walk.items[walk.position] for walk in batch], np.int64)
        seen = self._observe(slots, items)
        logits, states = self._engine.run(items, self._arena.gather(slots))
        log_sums = log_sum_exp(logits)
        sound = np.isfinite(log_sums)
        rankings = _rank_last(batch, logits, log_sums, sound)
        if sound.all():
            self._arena.scatter(slots, states, logits, log_sums)
        else:
            kept = [state[sound] for state in states]
            self._arena.scatter(slots[sound], kept, logits[sound], log_sums[sound])
        fine: list[bool] = sound.tolist()
        for row, walk in enumerate(batch):
            if fine[row]:
                walk.seen.append(seen[row])
                walk.ranking = rankings.get(row, NOTHING)
                walk.position += 1
        return fine

    def _observe(self, slots: Integers, items: Integers) -> list[Seen]:
        arena = self._arena
        fresh = (arena.steps[slots] == 0).tolist()
        probabilities, ranks = observe(arena.logits[slots], arena.log_sums[slots], items)
        pairs = zip(fresh, probabilities.tolist(), ranks.tolist(), strict=True)
        return [(None, None) if new else (probability, place) for new, probability, place in pairs]


def _tell(walk: Walk, error: Exception | None) -> None:
    """Say that a walk has ended; a waiter that fails must not take the others' answers with it."""
    try:
        walk.done(walk, error)
    except Exception:
        logger.exception("a finished walk could not be handed over")


def _rank_last(batch: list[Walk], logits: Floats, log_sums: Doubles, sound: Flags) -> dict[int, Ranking]:
    """The rankings, by row, of the sound rows whose walk ends here; rows of equal reach go together."""
    groups: dict[int, list[int]] = {}
    for row, walk in enumerate(batch):
        if walk.last and sound[row]:
            groups.setdefault(walk.reach, []).append(row)
    rankings: dict[int, Ranking] = {}
    for reach, rows in groups.items():
        rankings.update(zip(rows, rank(logits[rows], log_sums[rows], reach), strict=True))
    return rankings
