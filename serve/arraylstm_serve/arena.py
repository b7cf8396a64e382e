"""The arena: everything the server remembers of every session, in arrays allocated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arraylstm_serve.arrays import Doubles, Floats, Integers
from arraylstm_serve.bundle import State


class Arena:
    """Rows of recurrent state, each with the logits that its last step gave.

    The operating system commits a row's memory when the row is first used; freed slots are used again first.

    Args:
        slots: how many rows.
        states: the states a row holds.
        num_items: V, the width of the logits.

    Attributes:
        logits: (slots, V) float32, the last step's logits.
        log_sums: (slots,) float64, their log-sum-exp.
        steps: (slots,) int64, items consumed; where it is 0 the other two mean nothing.
    """

    def __init__(self, slots: int, states: Sequence[State], num_items: int) -> None:
        self._states = [np.zeros((slots, *state.shape), np.float32) for state in states]
        self.logits: Floats = np.zeros((slots, num_items), np.float32)
        self.log_sums = np.zeros(slots, np.float64)
        self.steps = np.zeros(slots, np.int64)
        self._slots = slots
        self._touched = 0
        self._returned: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of memory once every row is in use."""
        return sum(array.nbytes for array in self._rows())

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return self._slots - self._touched + len(self._returned)

    def acquire(self) -> int:
        """Take a free slot, at zero state and step 0.

        Raises:
            IndexError: every slot is taken.
        """
        if not self.free:
            raise IndexError("every slot is taken")
        if self._returned:
            slot = self._returned.pop()
        else:
            slot, self._touched = self._touched, self._touched + 1
        self.reset(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._returned.append(slot)

    def reset(self, slot: int) -> None:
        """Set a slot to zero state and step 0."""
        for state in self._states:
            state[slot] = 0
        self.steps[slot] = 0

    def copy(self, source: int, target: int) -> None:
        """Make one slot equal to another."""
        for array in self._rows():
            array[target] = array[source]

    def gather(self, slots: Integers) -> list[Floats]:
        """The states (B, *shape) of slots (B,)."""
        return [state[slots] for state in self._states]

    def scatter(self, slots: Integers, states: Sequence[Floats], logits: Floats, log_sums: Doubles) -> None:
        """Store one step of different slots (B,).

        Args:
            slots: (B,) int64, no slot twice.
            states: for each state (B, *shape) float32.
            logits: (B, V) float32.
            log_sums: (B,) float64, the log-sum-exp of each row of logits.
        """
        for mine, theirs in zip(self._states, states, strict=True):
            mine[slots] = theirs
        self.logits[slots] = logits
        self.log_sums[slots] = log_sums
        self.steps[slots] += 1

    def _rows(self) -> list[NDArray[Any]]:
        return [*self._states, self.logits, self.log_sums, self.steps]
