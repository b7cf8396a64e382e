"""What is done to sessions once they are in order: repeats are dropped, starts and ends are put on."""

from collections.abc import Iterable
from itertools import pairwise

from arraylstm.errors import DataError
from arraylstm.eventfiles.gather import Part
from arraylstm.eventfiles.options import DataOptions
from arraylstm.eventfiles.rows import counted
from arraylstm.eventfiles.times import Key


class Finished:
    """Sessions with all done to them.

    Attributes:
        sessions: the items of each.
        ends: the time of each one's last event; None where it has none.
        repeats: the number of events that were dropped.
    """

    def __init__(self, parts: Iterable[Part], options: DataOptions, flags: str) -> None:
        self.sessions: list[list[str]] = []
        self.ends: list[Key | None] = []
        self.repeats = 0
        self._options, self._flags = options, flags
        for items, end in parts:
            self.sessions.append(self._finish(items, len(self.sessions) + 1))
            self.ends.append(end)

    def _finish(self, items: list[str], number: int) -> list[str]:
        if self._options.drop_repeats:
            kept = [items[0], *(item for before, item in pairwise(items) if item != before)]
            self.repeats += len(items) - len(kept)
            items = kept
        start, end = self._options.session_start, self._options.session_end
        for name, item in (("session-start", start), ("session-end", end)):
            if item is not None and item in items:
                raise DataError(
                    f"session {number} has the item {item!r}: give {self._flags}{name} an item that no session has"
                )
        if start is not None:
            items.insert(0, start)
        if end is not None:
            items.append(end)
        return items

    def words(self) -> list[str]:
        """Return what was done, in words."""
        said = [f"{counted(self.repeats, 'repeat')} dropped"] if self._options.drop_repeats else []
        if self._options.session_start is not None:
            said.append(f"each session begun by {self._options.session_start!r}")
        if self._options.session_end is not None:
            said.append(f"each session ended by {self._options.session_end!r}")
        return said
