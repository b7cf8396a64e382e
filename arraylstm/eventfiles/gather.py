"""Events of several files, gathered by session and put in order."""

from array import array
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from arraylstm.eventfiles.rows import BadRows, Row
from arraylstm.eventfiles.times import Key, TimeColumn, UnreadableTimeError

Part = tuple[list[str], Key | None]
"""The items of a session, and the time of its last event."""


class _Times:
    """Times of a session's events: eight bytes each, as long as they are integers that fit."""

    def __init__(self) -> None:
        self.keys: array[int] | list[Key] = array("q")

    def append(self, key: Key) -> None:
        try:
            self.keys.append(key)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            self.keys = [*self.keys, key]


class Gathered:
    """Events by session, in the order they are read; an item's text is kept once, whatever its number of events.

    Args:
        times: reads the times; None if the order of the rows is that of the events.
        bad: takes rows without a time that can be read.
    """

    def __init__(self, times: TimeColumn | None, bad: BadRows) -> None:
        self._column, self._bad = times, bad
        self._texts: dict[str, str] = {}
        self._items: dict[str, list[str]] = {}
        self._times: dict[str, _Times] = {}
        self.duplicates = 0
        """Events of the same session, item and time as one before, counted by `parts`."""

    def add(self, row: Row) -> None:
        """Take one more event.

        Raises:
            DataError: its time is written in another way than those before it.
        """
        if self._column is not None:
            try:
                key = self._column.read(row.time or "", row.place)
            except UnreadableTimeError as error:
                self._bad.leave_out(error.fault, error.advice)
                return
            self._times.setdefault(row.session, _Times()).append(key)
        item = self._texts.setdefault(row.item, row.item)
        self._items.setdefault(row.session, []).append(item)

    def __len__(self) -> int:
        """Return the number of sessions, not cut at gaps."""
        return len(self._items)

    def parts(self, gap: Fraction | None = None) -> Iterator[Part]:
        """Yield the sessions, each ordered by time; it can be called once.

        Args:
            gap: seconds; a session ends where no event follows for longer.

        Raises:
            DataError: times do not say a distance in seconds, or some are missing.
        """
        if self._column is None:
            yield from ((items, None) for items in self._items.values())
            return
        self._column.check()
        longest = None if gap is None or not self._items else gap * self._column.keys_per_second()
        for session, items in self._items.items():
            items, keys = _in_order(items, self._times.pop(session).keys)
            self.duplicates += _repeated(items, keys)
            ends = [] if longest is None else [at for at, (a, b) in enumerate(pairwise(keys), 1) if b - a > longest]  # type: ignore[operator]
            for start, end in pairwise([0, *ends, len(items)]):
                yield items[start:end], keys[end - 1]


def _in_order(items: list[str], keys: Sequence[Key]) -> tuple[list[str], Sequence[Key]]:
    """Return items and times ordered by time; events of one time keep their order."""
    if all(a <= b for a, b in pairwise(keys)):
        return items, keys
    order = sorted(range(len(items)), key=keys.__getitem__)
    return [items[at] for at in order], [keys[at] for at in order]


def _repeated(items: list[str], keys: Sequence[Key]) -> int:
    """Return how many events have the time and item of another one before them."""
    count, seen = 0, {items[0]}
    for item, (before, key) in zip(items[1:], pairwise(keys)):
        if key != before:
            seen.clear()
        count += item in seen
        seen.add(item)
    return count
