"""The arena: everything the server remembers of every session, a slot each.

Tensors lie in the engine, on its device; the rest lies here. A session leaves and enters the arena as a `Record`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from arraylstm_serve.arrays import Flags, Floats, Integers
from arraylstm_serve.engine.base import LOGITS, Engine, row_bytes
from arraylstm_serve.engine.ranking import Ranking
from arraylstm_serve.sessions.session import RECENT, Answers, Record

Seen = tuple[float | None, int | None]
"""An item's probability and rank before it was consumed; None for the first item of all."""

NOTES_BYTES = 8 * (2 + RECENT)
"""Bytes of a slot that lie here and not in the engine."""

UNSEEN: Seen = (None, None)


def slot_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes that one session takes, whose tensors have these shapes."""
    return row_bytes(shapes) + NOTES_BYTES


class Arena:
    """Slots of sessions, allocated once; freed ones are used again first.

    Args:
        engine: has a row for each slot.
        slots: how many.

    Attributes:
        engine: the same.
        steps: (slots,) int64, items consumed.
        versions: (slots,) int64, how often each has changed.
        answers: what was answered under idempotency keys, of the slots that have such.
    """

    def __init__(self, engine: Engine, slots: int) -> None:
        self.engine = engine
        self.steps = np.zeros(slots, np.int64)
        self.versions = np.zeros(slots, np.int64)
        self.answers: dict[int, Answers] = {}
        self._recent = np.zeros((slots, RECENT), np.int64)
        self._slots = slots
        self._touched = 0
        self._returned: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of memory once every slot is in use, remembered answers apart."""
        return self._slots * slot_bytes(self.engine.shapes)

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return self._slots - self._touched + len(self._returned)

    def acquire(self) -> int:
        """Take a free slot, at the initial state and step 0.

        Raises:
            IndexError: every slot is taken.
        """
        if not self.free:
            raise IndexError("every slot is taken")
        if self._returned:
            slot = self._returned.pop()
        else:
            slot, self._touched = self._touched, self._touched + 1
        self.engine.clear(slot)
        self.steps[slot] = 0
        self.versions[slot] = 0
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self.answers.pop(slot, None)
        self._returned.append(slot)

    def step(
        self, slots: list[int], items: list[int], reaches: list[int]
    ) -> tuple[list[Seen], list[bool], list[Ranking]]:
        """Step different slots by one item each, and rank so many of the next ones.

        Returns:
            For each what the model had thought of its item, whether the step went well, and the ranking; a slot whose
            step did not go well is as it was before.
        """
        rows, ids = np.array(slots), np.array(items)
        counts = self.steps[rows]
        probabilities, ranks, sound, rankings = self.engine.step(rows, ids, reaches)
        seen: list[Seen] = list(zip(probabilities.tolist(), ranks.tolist(), strict=True))
        for row in np.flatnonzero(counts == 0).tolist():
            seen[row] = UNSEEN
        self._note(rows, ids, counts, sound)
        return seen, sound.tolist(), rankings

    def _note(self, rows: Integers, ids: Integers, counts: Integers, sound: Flags) -> None:
        if not sound.all():
            rows, ids, counts = rows[sound], ids[sound], counts[sound]
        self._recent[rows, counts % RECENT] = ids
        self.steps[rows] = counts + 1
        self.versions[rows] += 1

    def rank(self, slots: Sequence[int], reach: int) -> list[Ranking]:
        """The `reach` most likely next items of each slot."""
        return self.engine.rank(np.asarray(slots), reach)

    def logits(self, slot: int) -> Floats:
        """The scores (V,) of the slot's next item, as its last step gave them."""
        logits: Floats = self.engine.read(np.array([slot]))[LOGITS][0]
        return logits

    def recent(self, slot: int) -> Integers:
        """The ids (n,) of the slot's last items, oldest first."""
        step = self.steps.item(slot)
        recent: Integers = self._recent[slot, np.arange(max(0, step - RECENT), step) % RECENT]
        return recent

    def copy(self, source: int, target: int) -> None:
        """Make one slot equal to another, its remembered answers apart."""
        self.engine.copy(source, target)
        self.steps[target] = self.steps[source]
        self.versions[target] = self.versions[source]
        self._recent[target] = self._recent[source]

    def save(self, slots: Sequence[int]) -> list[Record]:
        """The sessions in some slots."""
        tensors = self.engine.read(np.asarray(slots, np.int64))
        return [
            Record(
                self.versions.item(slot),
                self.steps.item(slot),
                {name: values[row] for name, values in tensors.items()},
                self.recent(slot),
                copy.deepcopy(self.answers.get(slot, Answers())),
            )
            for row, slot in enumerate(slots)
        ]

    def load(self, slots: Sequence[int], records: Sequence[Record]) -> None:
        """Put sessions into different slots."""
        names = self.engine.shapes
        tensors = {name: np.stack([record.tensors[name] for record in records]) for name in names}
        self.engine.write(np.asarray(slots, np.int64), tensors)
        for slot, record in zip(slots, records, strict=True):
            self.steps[slot] = record.step
            self.versions[slot] = record.version
            places = np.arange(record.step - len(record.recent), record.step) % RECENT
            self._recent[slot, places] = record.recent
            if record.answers.by_key:
                self.answers[slot] = record.answers
