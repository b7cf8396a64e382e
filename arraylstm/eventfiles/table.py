"""Tables: a header and one event a row, separated by tabs, commas, semicolons or '|', quoted as in CSV files."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Self

from arraylstm.errors import DataError
from arraylstm.eventfiles.source import shown
from arraylstm.eventfiles.times import TimeColumn

DELIMITERS = "\t,;|"
_MISSING = {"", "\\N", "NULL", "null", "None", "NaN", "nan", "NA", "N/A", "<NA>"}
_RULERS = frozenset("-=+:")
_QUOTES = {
    "unexpected end": "a quote is opened and never closed",
    "expected after": "something stands after a closing quote; write a quote inside quotes twice",
    "field larger": "a field is longer than 131072 characters, as after a quote that is never closed",
    "new-line character": "a carriage return stands inside the line",
}


class Column(NamedTuple):
    """A column that is read, and the flag that names it."""

    name: str
    flag: str


class Columns(NamedTuple):
    """The columns that are read; without one for times, the order of the rows is that of the events."""

    session: Column
    item: Column
    time: Column | None


def delimiter(header: str) -> str:
    """Return what separates the columns of a header: the delimiter that it has most of outside quotes."""
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", header).count)


def fields(line: str) -> list[str]:
    """Return the fields of a line by itself, stripped of blanks; none if its quotes cannot be read."""
    reader = csv.reader([line], delimiter=delimiter(line), skipinitialspace=True, strict=True)
    try:
        return [field.strip() for field in next(reader, [])]
    except csv.Error:
        return []


def listed(names: Sequence[str]) -> str:
    """Return names as messages list them, at most twenty."""
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def read_table(lines: Iterable[str], header: str, columns: Columns) -> list[list[str]]:
    """Return the items of every session, ordered by time if there is a column for it, else as they stand.

    Args:
        lines: all lines of the file.
        header: the first of them that is not blank.
        columns: the columns to read.

    Raises:
        DataError: a column is missing or there twice, or a row has other fields than the header, a quote too few, no
            session, no item, or no time that can be read. The message has the file's line and its text.
    """
    source = _Lines(lines)
    rows = _rows(source, delimiter(header))
    names = next(rows, [])
    session_at, item_at = _place(columns.session, names), _place(columns.item, names)
    time_at = None if columns.time is None else _place(columns.time, names)
    times, sessions = TimeColumn(columns.time.flag if columns.time else ""), dict[str, list[tuple[Any, str]]]()
    for row in rows:
        session, item = row[session_at], row[item_at]
        _check_event(session, item, columns, source)
        time = 0 if time_at is None else times.read(row[time_at], source.number)
        sessions.setdefault(session, []).append((time, item))
    times.check()
    if not sessions:
        raise DataError("holds no events, only a header")
    return [[item for _, item in sorted(events, key=itemgetter(0))] for events in sessions.values()]


class _Lines:
    """The lines that csv takes, with the place of the row that it has read last."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._row: list[str] = []
        self.number = 1  # of the row's first line

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self._row.append(next(self._lines))
        return self._row[-1]

    def begin_row(self) -> None:
        self.number += len(self._row)
        self._row.clear()

    def place(self) -> str:
        return f"line {self.number}"

    def text(self) -> str:
        return shown(self._row[0])

    def continued(self) -> list[str]:
        """Return the row's lines after its first."""
        return self._row[1:]


def _rows(source: _Lines, separator: str) -> Iterator[list[str]]:
    """Yield the rows that are not blank, their fields stripped of blanks; the first row is the header."""
    reader = csv.reader(source, delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    while True:
        source.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = next((why for said, why in _QUOTES.items() if said in str(error)), str(error))
            raise DataError(f"{source.place()} cannot be read as a row: {why}: {source.text()}") from None
        row = [field.strip() for field in row]
        if row and row != [""]:
            _refuse_swallowed_rows(source, separator, len(names))
            _check_row(row, names, source)
            names = names or row
            yield row


def _check_row(row: list[str], names: list[str], source: _Lines) -> None:
    """Raise DataError for a row that is no event; without names it is the header."""
    if names and len(row) != len(names):
        count = "1 field" if len(row) == 1 else f"{len(row)} fields"
        raise DataError(f"{source.place()} has {count}, the header {len(names)}: {source.text()}")
    if row == names:
        raise DataError(f"{source.place()} is the header again, as in files that were joined: {source.text()}")
    if names and row[0].startswith("# "):
        raise DataError(f"{source.place()} looks like a comment: {source.text()}")


def _check_event(session: str, item: str, columns: Columns, source: _Lines) -> None:
    if not item or session in _MISSING:
        lacking = columns.session if session in _MISSING else columns.item
        raise DataError(f"{source.place()} has no session or no item, in {lacking.name!r}: {source.text()}")
    if session[0] in _RULERS and _RULERS.issuperset(session + item):
        raise DataError(f"{source.place()} looks like a ruler in a drawn table: {source.text()}")


def _refuse_swallowed_rows(source: _Lines, separator: str, width: int) -> None:
    """Raise DataError if a quoted field that goes over several lines holds what looks like further rows."""
    for line in source.continued():
        if width > 1 and line.partition('"')[0].count(separator) >= width - 1:
            place = f"{source.place()} opens a quote that is closed lines later"
            raise DataError(f"{place}, with what looks like whole rows before that: {source.text()}")


def _place(column: Column, names: Sequence[str]) -> int:
    if column.name not in names:
        raise DataError(f"has no column {column.name!r}; its columns are {listed(names)}: give {column.flag}")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"has the column {twice[0]!r} more than once; its columns are {listed(names)}")
    return names.index(column.name)
