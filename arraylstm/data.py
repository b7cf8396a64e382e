"""Reading event files as sessions: one list of item labels each, in the order the events happened."""

import csv
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from arraylstm.errors import DataError

Format = Literal["auto", "lines", "table", "text"]
Sessions = list[list[str]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How an event file is to be read."""

    format: Format = "auto"
    """lines: a session a line, items between blanks; table: a delimited file with a header, an event a line; \
text: plain text, every character an item; auto: table where the first line names the columns, else lines."""
    session_column: str = "SessionId"
    """Column of a table that names the session."""
    item_column: str = "ItemId"
    """Column of a table that names the item."""
    time_column: str = "Time"
    """Column of a table by which a session's events are ordered; without such a column the file's order holds."""
    text_length: int = 128
    """Characters to a session, for text."""


def read_sessions(path: Path, options: DataOptions) -> Sessions:
    """Read the sessions of an event file; sessions without items are dropped.

    Raises:
        DataError: the file is missing, not UTF-8, empty, or lacks a column; the message says which.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            sessions = [session for session in _READERS[_format(path, options)](file, path, options) if session]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    if not sessions:
        raise DataError(f"{path}: holds no events")
    return sessions


def split(sessions: Sequence[T], fractions: Sequence[float], seed: int) -> list[list[T]]:
    """Split sessions at random: one part per fraction (at least one session each), and the rest first.

    Raises:
        DataError: there are fewer sessions than parts, or the fractions leave none for the first part.
    """
    order = list(range(len(sessions)))
    random.Random(seed).shuffle(order)
    sizes = [max(1, round(fraction * len(order))) for fraction in fractions]
    if sum(sizes) >= len(order):
        raise DataError(f"{len(order)} sessions are too few to hold out {' and '.join(map(str, sizes))} of them")
    parts = []
    for size in reversed(sizes):
        order, part = order[:-size], order[-size:]
        parts.append(part)
    return [[sessions[index] for index in part] for part in [order, *reversed(parts)]]


def _format(path: Path, options: DataOptions) -> str:
    if options.format != "auto":
        return options.format
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    columns = next(csv.reader([first], delimiter=_delimiter(first)), [])
    return "table" if {options.session_column, options.item_column} <= set(columns) else "lines"


def _read_lines(file: Iterable[str], path: Path, options: DataOptions) -> Iterator[list[str]]:
    return (line.split() for line in file)


def _read_text(file: Iterable[str], path: Path, options: DataOptions) -> Iterator[list[str]]:
    text = "".join(file)
    return (list(text[at : at + options.text_length]) for at in range(0, len(text), options.text_length))


def _read_table(file: Iterable[str], path: Path, options: DataOptions) -> Iterable[list[str]]:
    lines = iter(file)
    header = next(lines, "")
    delimiter = _delimiter(header)
    columns = next(csv.reader([header], delimiter=delimiter), [])
    for column in (options.session_column, options.item_column):
        if column not in columns:
            raise DataError(f"{path}: has no column {column!r}; its columns are {', '.join(map(repr, columns))}")
    events: dict[str, list[tuple[float, str]]] = {}
    for number, row in enumerate(csv.DictReader(lines, columns, delimiter=delimiter), start=2):
        session, item = row[options.session_column], row[options.item_column]
        if not session or not item:
            raise DataError(f"{path}: line {number} has no session or no item")
        time = _time(row[options.time_column], path, number) if options.time_column in columns else 0.0
        events.setdefault(session, []).append((time, item))
    return [[item for _, item in sorted(session, key=lambda event: event[0])] for session in events.values()]


def _time(value: str | None, path: Path, number: int) -> float:
    try:
        return float(value or "")
    except ValueError:
        raise DataError(f"{path}: line {number} has the time {value!r}, which is not a number") from None


def _delimiter(header: str) -> str:
    return max("\t,;|", key=header.count)


_READERS = {"lines": _read_lines, "table": _read_table, "text": _read_text}
