"""Rows of tables, whatever file they are from: what is read of them, and which are left out."""

from collections.abc import Sequence
from typing import NamedTuple

from arraylstm.errors import DataError

MISSING = {"", "\\N", "NULL", "null", "None", "NaN", "nan", "NA", "N/A", "<NA>"}
"""What stands where there is no session."""

_SHOWN = 3


class Column(NamedTuple):
    """A column that is read, and the flag that names it."""

    name: str
    flag: str


class Columns(NamedTuple):
    """The columns that are read; without one for times, the order of the rows is that of the events."""

    session: Column
    item: Column
    time: Column | None

    def missing(self, session: str, item: str) -> str | None:
        """Return what a row lacks, in words."""
        if item and session not in MISSING:
            return None
        return f"has no session or no item, in {(self.session if session in MISSING else self.item).name!r}"


class Row(NamedTuple):
    """An event: where it stands (`line 5`), its session, its item, and its time as it is written, if one is read."""

    place: str
    session: str
    item: str
    time: str | None


class BadRows:
    """Rows that cannot be read: some are left out, and one more is refused.

    Args:
        allowed: how many may be left out.
        flag: the flag that says so.
    """

    def __init__(self, allowed: int, flag: str) -> None:
        self._allowed, self._flag = allowed, flag
        self.count = 0
        self.file = ""
        """Stands before the places of the file that is read, where there are several."""
        self._shown: list[str] = []

    def leave_out(self, fault: str, advice: str = "") -> None:
        """Take note of one more row; `fault` begins with its place, `advice` says what to do if it is refused.

        Raises:
            DataError: there are more than are allowed.
        """
        self.count += 1
        if self.count > self._allowed:
            limit = f"; {self._flag} {self._allowed} allows no further one" if self._allowed else ""
            raise DataError(fault + advice + limit)
        if len(self._shown) < _SHOWN:
            self._shown.append(f"{self.file}{fault}")

    def words(self) -> str:
        """Return how many rows were left out, and the first of them."""
        if not self.count:
            return ""
        more = [f"and {self.count - _SHOWN:,} more"] if self.count > _SHOWN else []
        return f"{counted(self.count, 'bad row')} left out ({'; '.join(self._shown + more)})"


def counted(count: int, what: str) -> str:
    """Return a count with the word for what is counted, as messages say it."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names as messages list them, at most twenty."""
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def place(column: Column, names: Sequence[str]) -> int:
    """Return where a column stands among those of a table.

    Raises:
        DataError: it is not there, or a column is there twice.
    """
    if column.name not in names:
        raise DataError(f"has no column {column.name!r}; its columns are {listed(names)}: give {column.flag}")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"has the column {twice[0]!r} more than once; its columns are {listed(names)}")
    return names.index(column.name)
