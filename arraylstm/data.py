"""Reading event files as sessions: one list of item labels each, in the order the events happened."""

import csv
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from arraylstm.checks import require_positive
from arraylstm.errors import DataError

Format = Literal["auto", "lines", "table", "text"]
Sessions = list[list[str]]
T = TypeVar("T")
SESSION, ITEM, TIME = "SessionId", "ItemId", "Time"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How an event file is to be read."""

    format: Format = "auto"
    """lines: a session a line, items between blanks; table: a delimited file with a header, an event a line; \
text: plain text, every character an item; auto: table where a column is named here or by the first line, else lines."""
    session_column: str | None = None
    """Column of a table that names the session [default: SessionId]."""
    item_column: str | None = None
    """Column of a table that names the item [default: ItemId]."""
    time_column: str | None = None
    """Column of a table that orders a session's events [default: Time, or the file's order where there is none]."""
    text_length: int = 128
    """Characters to a session, for text."""

    def __post_init__(self) -> None:
        """Raise ValueError for a length that makes no session."""
        require_positive("text_length", self.text_length)


def read_sessions(path: Path, options: DataOptions) -> tuple[Sessions, Format]:
    """Read the sessions of an event file in one pass; sessions without items are dropped.

    Returns:
        The sessions, and the format that the file was read in.

    Raises:
        DataError: the file is missing, not UTF-8, empty, or lacks a column; the message says which.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            form = _form(first, options)
            sessions = [session for session in _READERS[form](chain([first], file), path, options) if session]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except csv.Error as error:
        raise DataError(f"{path}: is not a readable table: {error}") from None
    if not sessions:
        raise DataError(f"{path}: holds no events")
    return sessions, form


def split(sessions: Sequence[T], fractions: Sequence[float], seed: int) -> list[list[T]]:
    """Split sessions at random: first the rest, then one part per fraction, of at least one session each.

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


def _form(first: str, options: DataOptions) -> Format:
    if options.format != "auto":
        return options.format
    named = {options.session_column, options.item_column, options.time_column} != {None}
    return "table" if named or {SESSION, ITEM} <= set(_columns(first)) else "lines"


def _read_lines(file: Iterable[str], path: Path, options: DataOptions) -> Iterator[list[str]]:
    return (line.split() for line in file)


def _read_text(file: Iterable[str], path: Path, options: DataOptions) -> Iterator[list[str]]:
    text = "".join(file)
    return (list(text[at : at + options.text_length]) for at in range(0, len(text), options.text_length))


def _read_table(file: Iterable[str], path: Path, options: DataOptions) -> Iterable[list[str]]:
    lines = iter(file)
    header = next(lines)
    columns = _columns(header)
    session_column, item_column = options.session_column or SESSION, options.item_column or ITEM
    time_column = options.time_column or (TIME if TIME in columns else None)
    for column in filter(None, (session_column, item_column, time_column)):
        if column not in columns:
            raise DataError(f"{path}: has no column {column!r}; its columns are {', '.join(map(repr, columns))}")
    events: dict[str, list[tuple[float, str]]] = {}
    rows = csv.DictReader(lines, columns, delimiter=_delimiter(header), skipinitialspace=True, strict=True)
    for number, row in enumerate(rows, start=2):
        session, item = row[session_column], row[item_column]
        if not session or not item:
            raise DataError(f"{path}: line {number} has no session or no item")
        time = _time(row[time_column], path, number) if time_column else 0
        events.setdefault(session, []).append((time, item))
    return [[item for _, item in sorted(session, key=lambda event: event[0])] for session in events.values()]


def _columns(header: str) -> list[str]:
    return next(csv.reader([header], delimiter=_delimiter(header), skipinitialspace=True), [])


def _time(value: str | None, path: Path, number: int) -> float:
    """Return a time as an exact integer where it is one, such as nanoseconds since the epoch, else as a float."""
    for kind in (int, float):
        try:
            time = kind(value or "")
        except ValueError:
            continue
        if not math.isnan(time):
            return time
    raise DataError(f"{path}: line {number} has the time {value!r}, which is not a number")


def _delimiter(header: str) -> str:
    return max("\t,;|", key=header.count)


_READERS: dict[str, Callable[[Iterable[str], Path, DataOptions], Iterable[list[str]]]] = {
    "lines": _read_lines,
    "table": _read_table,
    "text": _read_text,
}
