"""Tables as text: an event a row, fields between tabs, commas, semicolons, '|' or '::', quoted as in CSV files."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from arraylstm.errors import DataError
from arraylstm.eventfiles.rows import BadRows, Columns, Row, listed, place
from arraylstm.eventfiles.source import shown

DELIMITERS = ("::", "\t", ",", ";", "|")
_RULERS = frozenset("-=+:")
_QUOTES = {
    "unexpected end": "a quote is opened and never closed",
    "expected after": "something stands after a closing quote; write a quote inside quotes twice",
    "field larger": "a field is longer than 131072 characters, as after a quote that is never closed",
    "new-line character": "a carriage return stands inside the line",
}


class Layout(NamedTuple):
    """How a table's lines are read: what separates fields, whether no line names columns, and the flag that says so."""

    delimiter: str
    headerless: bool
    flag: str


def delimiter(header: str) -> str:
    """Return what separates the columns of a header: the delimiter that it has most of outside quotes."""
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", header).count)


def fields(line: str, separator: str | None = None) -> list[str]:
    """Return the fields of a line by itself, stripped of blanks; none if its quotes cannot be read."""
    try:
        return [field.strip() for field in next(_reader([line], separator or delimiter(line)), [])]
    except csv.Error:
        return []


def read_table(lines: Iterable[str], layout: Layout, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        lines: all lines of the file.
        layout: how they are read.
        columns: the columns to read, by the names in the first line or, without a header, by their numbers from 1.
        bad: takes rows that have other fields than the first, no session or no item.

    Raises:
        DataError: a column is missing or there twice, a quote swallows rows, or there are too many bad rows. The
            message has the file's line and its text.
    """
    source = _Lines(lines)
    rows = _rows(source, layout, bad)
    names = next(rows, [])
    wanted = [column for column in columns if column is not None]
    if not layout.headerless and all(column.name.isdecimal() for column in wanted):
        said = (
            f"{columns.session.flag} {columns.session.name} is a number, which names a column with {layout.flag} alone"
        )
        raise DataError(
            f"{said}: give that, or give the columns names in the first line; its columns are {listed(names)}"
        )
    session_at, item_at, *time_at = (place(column, names) for column in wanted)
    for row in rows:
        session, item = row[session_at], row[item_at]
        fault = columns.missing(session, item)
        if fault is None and session[0] in _RULERS and _RULERS.issuperset(session + item):
            fault = "looks like a ruler in a drawn table"
        if fault is None:
            yield Row(source.place(), session, item, row[time_at[0]] if time_at else None)
        else:
            bad.leave_out(f"{source.place()} {fault}: {source.text()}")


def _reader(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    if len(separator) > 1:  # there are no quotes in such files
        return (line.strip("\r\n").split(separator) for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


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


def _rows(source: _Lines, layout: Layout, bad: BadRows) -> Iterator[list[str]]:
    """Yield the rows that are not blank, their fields stripped of blanks; the first names the columns."""
    reader = _reader(source, layout.delimiter)
    names: list[str] = []
    while True:
        source.begin_row()
        try:
            row = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            _leave_out_unless_swallowing(str(error), source, bad)
            continue
        if row in ([], [""]):
            continue
        _refuse_swallowed_rows(source, layout.delimiter, len(names))
        if not names:
            names = row
            yield [str(number) for number in range(1, len(row) + 1)] if layout.headerless else row
            if not layout.headerless:
                continue
        fault = _fault(row, names, layout, source)
        if fault:
            bad.leave_out(f"{source.place()} {fault}: {source.text()}")
        else:
            yield row


def _leave_out_unless_swallowing(error: str, source: _Lines, bad: BadRows) -> None:
    """Leave out a row that csv cannot read; raise DataError if other rows may have gone with it."""
    why = next((why for said, why in _QUOTES.items() if said in error), error)
    fault = f"{source.place()} cannot be read as a row: {why}: {source.text()}"
    if source.continued() or "unexpected end" in error:
        raise DataError(fault)
    bad.leave_out(fault)


def _fault(row: list[str], names: list[str], layout: Layout, source: _Lines) -> str | None:
    """Return why a row is no event, in words."""
    if len(row) != len(names):
        count = "1 field" if len(row) == 1 else f"{len(row)} fields"
        return f"has {count}, the {'first row' if layout.headerless else 'header'} {len(names)}"
    if row == names and not layout.headerless:
        return "is the header again, as in files that were joined"
    return "looks like a comment" if row[0].startswith("# ") else None


def _refuse_swallowed_rows(source: _Lines, separator: str, width: int) -> None:
    """Raise DataError if a quoted field that goes over several lines holds what looks like further rows."""
    for line in source.continued():
        if width > 1 and line.partition('"')[0].count(separator) >= width - 1:
            place = f"{source.place()} opens a quote that is closed lines later"
            raise DataError(f"{place}, with what looks like whole rows before that: {source.text()}")
