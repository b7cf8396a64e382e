"""Slots: the numbers of an engine's rows, and which of them are in use."""

from __future__ import annotations

INITIAL = 0
"""The slot that always holds the initial state; every new session starts from it."""


class Slots:
    """Hands out the rows of an engine. A row that was given back is used again first.

    Args:
        count: how many rows the engine has, the initial one included.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._untouched = INITIAL + 1
        self._returned: list[int] = []

    @property
    def free(self) -> int:
        """How many slots are not in use."""
        return self._count - self._untouched + len(self._returned)

    def acquire(self) -> int:
        """Take a free slot; its row may hold anything.

        Raises:
            IndexError: every slot is in use.
        """
        if self._returned:
            return self._returned.pop()
        if self._untouched == self._count:
            raise IndexError("every slot is taken")
        slot, self._untouched = self._untouched, self._untouched + 1
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back. Giving back the initial slot does nothing."""
        if slot != INITIAL:
            self._returned.append(slot)
