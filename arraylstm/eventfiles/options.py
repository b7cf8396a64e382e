"""How event files are to be read, and what is done to their sessions."""

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal

from arraylstm.checks import require_positive
from arraylstm.eventfiles.times import NO_TIME

Format = Literal["auto", "lines", "table", "jsonl", "text"]
SESSION, ITEM, TIME = "SessionId", "ItemId", "Time"
TEXT_LENGTH = 128
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_GAP = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h|d)", re.ASCII)
_COLUMNS = ("session_column", "user_column", "item_column", "time_column")
_OR_NONE = {"time_column": f"; {NO_TIME!r} keeps the file's order"}
_LAYOUT = ("delimiter", "headerless")
EVENT_A_ROW = (*_COLUMNS, "session_gap", "bad_rows")
"""Options for files with an event a row."""

USED_BY = {
    "table": (*EVENT_A_ROW, *_LAYOUT, "drop_repeats", "session_start", "session_end"),
    "jsonl": (*EVENT_A_ROW, "drop_repeats", "session_start", "session_end"),
    "lines": ("drop_repeats", "session_start", "session_end"),
    "text": ("text_length",),
}
"""The options that each form of file has a use for."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How event files are to be read."""

    format: Format = "auto"
    """lines: a session a line, items between blanks; table: a delimited file, an event a row, or Parquet; jsonl: an \
event a line, as JSON; text: plain text, every character an item; auto: table or jsonl where a column is named here or \
by the first line, else lines. A file that looks like none is refused."""
    session_column: str | None = None
    """Column that names the session: of a table, or the key of an object in JSON [default: SessionId]."""
    user_column: str | None = None
    """Column that names the user, in place of one for sessions; a session then ends with --session-gap."""
    item_column: str | None = None
    """Column that names the item [default: ItemId]."""
    time_column: str | None = None
    """Column that orders a session's events: numbers or ISO 8601, all in one way; none keeps the file's order \
[default: Time if it is there and the other columns have their default names, else none]."""
    session_gap: str | None = None
    """End a session where no event follows for longer, such as 30min, 90s, 1.5h or 2d."""
    delimiter: str | None = None
    """What separates a table's fields; tab is the tab [default: what the first line has most of: a tab, or one of \
, ; | ::]."""
    headerless: bool = False
    """The table has no header, and columns are named by their numbers, from 1."""
    bad_rows: int = 0
    """Rows that may be left out because they cannot be read, in all files together; one more is refused."""
    drop_repeats: bool = False
    """Leave out an event whose item is that of the event before."""
    text_length: int = TEXT_LENGTH
    """Characters to a session, for text."""
    session_start: str | None = None
    """Item to put before the first item of every session, so that its first item can be predicted."""
    session_end: str | None = None
    """Item to put behind the last item of every session, so that its end is an event that can be predicted."""

    def __post_init__(self) -> None:
        """Raise ValueError for what names no columns, makes no session, or does not go together."""
        require_positive("text_length", self.text_length)
        self._check_columns()
        if type(self.bad_rows) is not int or self.bad_rows < 0:
            raise ValueError(f"bad_rows must be an integer of at least 0, got {self.bad_rows!r}")
        if self.delimiter is not None and (not self.delimiter or set(self.delimiter) & set('"\r\n')):
            raise ValueError(f"delimiter must be text without quotes and line ends, or tab, got {self.delimiter!r}")
        for name in ("session_start", "session_end"):
            item = getattr(self, name)
            if item is not None and not item.strip():
                raise ValueError(f"{name} must be an item with a visible character, got {item!r}")
        if self.session_start is not None and self.session_start == self.session_end:
            raise ValueError(f"session_start and session_end must differ, got {self.session_end!r} twice")
        self._check_gap()

    def _check_columns(self) -> None:
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None and not column.strip():
                raise ValueError(f"{name} must be the name of a column, got {column!r}{_OR_NONE.get(name, '')}")
            if self.headerless and column not in (None, NO_TIME) and not re.fullmatch("[1-9][0-9]{0,8}", column):
                raise ValueError(f"{name} must be the number of a column, from 1, with headerless, got {column!r}")
        if self.headerless and (self.session_or_user is None or self.item_column is None):
            raise ValueError("headerless needs the numbers of columns as session_column or user_column and item_column")
        if self.session_column is not None and self.user_column is not None:
            raise ValueError("session_column and user_column say the same of events: give one of them")
        if (self.session_or_user or SESSION) == (self.item_column or ITEM):
            name = "session_column" if self.user_column is None else "user_column"
            raise ValueError(f"{name} and item_column must differ, got {self.item_column or ITEM!r} twice")

    def _check_gap(self) -> None:
        if self.session_gap is None:
            if self.user_column is not None:
                raise ValueError("user_column needs session_gap, such as 30min: where a user's session ends")
        elif not self.gap:
            raise ValueError(
                f"session_gap must be a number above 0 with s, min, h or d, such as 30min, got {self.session_gap!r}"
            )
        elif self.time_column == NO_TIME:
            raise ValueError(f"session_gap needs times, and time_column is {NO_TIME!r}: leave one of them out")

    @property
    def session_or_user(self) -> str | None:
        """The column that is named for sessions or users."""
        return self.session_column or self.user_column

    @property
    def gap(self) -> Fraction | None:
        """The seconds of `session_gap`; None if it is not given or says no time."""
        found = _GAP.fullmatch(self.session_gap or "")
        return Fraction(found[1]) * _SECONDS[found[2]] if found else None

    @property
    def separator(self) -> str | None:
        """What separates fields, if it is given."""
        return "\t" if self.delimiter in ("tab", "\\t") else self.delimiter

    def changed(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        return {field.name: value for field, value in values if value != field.default}
