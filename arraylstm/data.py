"""Reading event files as sessions: one list of item labels each, in the order the events happened."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from arraylstm.checks import require_positive
from arraylstm.errors import DataError
from arraylstm.eventfiles.lines import read_lines
from arraylstm.eventfiles.source import read_text_lines
from arraylstm.eventfiles.suspicion import Suspicion
from arraylstm.eventfiles.table import Column, Columns, fields, read_table
from arraylstm.eventfiles.times import NO_TIME

Format = Literal["auto", "lines", "table", "text"]
Sessions = list[list[str]]
T = TypeVar("T")
SESSION, ITEM, TIME = "SessionId", "ItemId", "Time"
TEXT_LENGTH = 128


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How an event file is to be read."""

    format: Format = "auto"
    """lines: a session a line, items between blanks; table: a delimited file with a header, an event a line; \
text: plain text, every character an item; auto: table where a column is named here or by the first line, else lines. \
A file that looks like neither is refused."""
    session_column: str | None = None
    """Column of a table that names the session [default: SessionId]."""
    item_column: str | None = None
    """Column of a table that names the item [default: ItemId]."""
    time_column: str | None = None
    """Column of a table that orders a session's events: numbers or ISO 8601, all in one way; none keeps the file's \
order [default: Time if it is there and the other columns have their default names, else none]."""
    text_length: int = TEXT_LENGTH
    """Characters to a session, for text."""
    session_end: str | None = None
    """Item to put behind the last item of every session, so that its end is an event that can be predicted."""

    def __post_init__(self) -> None:
        """Raise ValueError for what names no columns, or makes no session."""
        require_positive("text_length", self.text_length)
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None and not column.strip():
                raise ValueError(f"{name} must be the name of a column, got {column!r}{_OR_NONE.get(name, '')}")
        if self.session_end is not None and not self.session_end.strip():
            raise ValueError(f"session_end must be an item with a visible character, got {self.session_end!r}")
        if (self.session_column or SESSION) == (self.item_column or ITEM):
            raise ValueError(
                f"session_column and item_column must differ, got {self.session_column or SESSION!r} twice"
            )


_COLUMNS = ("session_column", "item_column", "time_column")
_LIKE_TIME = {"time", "timestamp", "datetime", "date", "ts"}
_OR_NONE = {"time_column": f"; {NO_TIME!r} keeps the file's order"}


def read_sessions(path: Path, options: DataOptions, flags: str = "--") -> tuple[Sessions, str]:
    """Read the sessions of an event file, plain or in gzip, in one pass; sessions without items are dropped.

    With `session_end` every session ends with that item.

    Args:
        path: the file, or a pipe.
        options: how to read it.
        flags: what the flags of these options begin with, for messages.

    Returns:
        The sessions, and in words how the file was read.

    Raises:
        DataError: an option does not go with the format; the file is missing, empty, not UTF-8, looks like another
            form than it would be read in, or lacks a column; or a row has other fields than the header, no session,
            no item, or no time that can be read; or `session_end` is an item of the file. The message says what, and
            for a line of the file on which.
    """
    _check_used(options, flags)
    try:
        sessions, words = _read(read_text_lines(path), options, flags)
        words += _end_sessions(sessions, options.session_end, flags)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if not sessions:
        raise DataError(f"{path}: holds no events")
    return sessions, words


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


def _check_used(options: DataOptions, flags: str) -> None:
    """Raise DataError if an option describes another format than the one that is given."""
    for name in _COLUMNS:
        if getattr(options, name) is not None and options.format not in ("auto", "table"):
            flag = f"{flags}{name.replace('_', '-')}"
            raise DataError(f"{flag} describes a table, but {flags}format is {options.format!r}: leave one of them out")
    if options.text_length != TEXT_LENGTH and options.format != "text":
        raise DataError(f"{flags}text-length describes text: give {flags}format text too, or leave it out")
    if options.session_end is not None and options.format == "text":
        raise DataError(f"{flags}session-end marks the end of sessions, and {flags}format text has none: leave it out")


def _read(lines: Iterator[str], options: DataOptions, flags: str) -> tuple[Sessions, str]:
    """Return the sessions of a file's lines, and in words how they were read."""
    top = _up_to_content(lines)
    first, lines = top[-1] if top else "", chain(top, lines)
    form = _form(first, options)
    if form == "text":
        text = "".join(lines)
        length = options.text_length
        return [list(text[at : at + length]) for at in range(0, len(text), length)], form
    if form == "lines":
        return read_lines(lines, Suspicion(flags, {SESSION, ITEM}) if options.format == "auto" else None), form
    columns = _columns(first, options, flags)
    order = f"ordered by {columns.time.name!r}" if columns.time else "in the file's order"
    return read_table(lines, first, columns), f"a table, {order}"


def _end_sessions(sessions: Sessions, end: str | None, flags: str) -> str:
    """Put the item behind every session, if there is one; return in words what was done."""
    if end is None:
        return ""
    for number, session in enumerate(sessions, start=1):
        if end in session:
            raise DataError(
                f"session {number} has the item {end!r}: give {flags}session-end an item that no session has"
            )
        session.append(end)
    return f", each session ended by {end!r}"


def _up_to_content(lines: Iterator[str]) -> list[str]:
    """Return the lines up to the first that is not blank."""
    top = []
    for line in lines:
        top.append(line)
        if line.strip():
            break
    return top


def _form(first: str, options: DataOptions) -> Format:
    if options.format != "auto":
        return options.format
    named = {options.session_column, options.item_column, options.time_column} != {None}
    return "table" if named or {SESSION, ITEM} <= set(fields(first)) else "lines"


def _columns(header: str, options: DataOptions, flags: str) -> Columns:
    """Return the columns to read, of a file with this header.

    Raises:
        DataError: nothing is said of times, and the header has a column for them under another name than the default.
    """
    session, item = options.session_column or SESSION, options.item_column or ITEM
    time = options.time_column
    if time is None and (session, item) == (SESSION, ITEM):
        names = fields(header)
        alike = [name for name in names if name.lower() in _LIKE_TIME]
        if alike and TIME not in names:
            raise DataError(
                f"has the column {alike[0]!r}, which may order its events: give {flags}time-column {alike[0]}, "
                f"or {flags}time-column {NO_TIME} to keep the file's order"
            )
        time = TIME if TIME in names else None
    return Columns(
        Column(session, f"{flags}session-column"),
        Column(item, f"{flags}item-column"),
        None if time in (None, NO_TIME) else Column(time, f"{flags}time-column"),
    )
