"""Event files that belong together, read one after the other: what is in them, and in words what was done."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from arraylstm.errors import DataError
from arraylstm.eventfiles import parquet
from arraylstm.eventfiles.finish import Finished
from arraylstm.eventfiles.forms import Form, check_parquet, check_used, columns_to_read, form_of, names_of
from arraylstm.eventfiles.gather import Gathered, Part
from arraylstm.eventfiles.jsonlines import read_json_lines
from arraylstm.eventfiles.lines import read_lines
from arraylstm.eventfiles.options import ITEM, SESSION, DataOptions
from arraylstm.eventfiles.rows import BadRows, Columns, Row, counted
from arraylstm.eventfiles.source import Content, opened
from arraylstm.eventfiles.suspicion import Suspicion
from arraylstm.eventfiles.table import Layout, delimiter, read_table
from arraylstm.eventfiles.times import Key, TimeColumn

Sessions = list[list[str]]


@dataclass(frozen=True)
class Reading:
    """What was read from event files.

    Attributes:
        sessions: the items of each session.
        ends: the time of each session's last event, as numbers that sort; None if no times were read.
        words: how the files were read, what was done to their sessions, and what was left out.
        record: the same as values for JSON, with the files in the order they were read.
    """

    sessions: Sessions
    ends: list[Key] | None
    words: str
    record: dict[str, Any]

    @property
    def source(self) -> str:
        """The files, in words."""
        files = self.record["files"]
        return ", ".join(files) if len(files) < 3 else f"{files[0]} and {len(files) - 1} more files"


class Reader:
    """Reads files that belong together, one after the other.

    Args:
        options: how to read them.
        flags: what the flags of these options begin with, for messages.
        several: there is more than one file, so that places need the names of files.

    Raises:
        DataError: as `arraylstm.data.read` says.
    """

    def __init__(self, options: DataOptions, flags: str, several: bool) -> None:
        self._options, self._flags, self._several = options, flags, several
        self._form: Form | None = None
        self._columns: Columns | None = None
        self._first: Path | None = None
        self._bad = BadRows(options.bad_rows, f"{flags}bad-rows")
        self._times: TimeColumn | None = None
        self._rows = Gathered(None, self._bad)
        self._sessions: Sessions = []

    def read(self, path: Path) -> None:
        """Read one more file."""
        with opened(path) as content:
            if content.is_parquet:
                self._settle_form("table", path)
                check_parquet(self._options, self._flags)
                columns = self._settle_columns(parquet.column_names(path), path)
                self._gather(parquet.read_parquet(path, columns, self._bad), path)
            else:
                self._read_text(content, path)

    def _read_text(self, content: Content, path: Path) -> None:
        lines = content.lines()
        top = _up_to_content(lines)
        first, lines = top[-1] if top else "", chain(top, lines)
        form = form_of(first, self._options)
        self._settle_form(form, path)
        if form == "text":
            self._sessions += _pieces("".join(lines), self._options.text_length)
        elif form == "lines":
            suspicion = Suspicion(self._flags, {SESSION, ITEM}) if self._options.format == "auto" else None
            self._sessions += read_lines(lines, suspicion)
        else:
            columns = self._settle_columns(names_of(first, form, self._options), path)
            self._gather(self._events(lines, first, form, columns), path)

    def _events(self, lines: Iterable[str], first: str, form: Form, columns: Columns) -> Iterator[Row]:
        if form == "jsonl":
            return read_json_lines(lines, columns, self._bad)
        separator = self._options.separator or delimiter(first)
        layout = Layout(separator, self._options.headerless, f"{self._flags}headerless")
        return read_table(lines, layout, columns, self._bad)

    def _settle_form(self, form: Form, path: Path) -> None:
        """Take the form of the first file for that of all.

        Raises:
            DataError: the file has another form, or an option has no use for it.
        """
        check_used(form, self._options, self._flags)
        if self._form not in (None, form):
            raise DataError(f"is read as {form!r}, but {self._first} as {self._form!r}")
        self._form, self._first = form, self._first or path

    def _settle_columns(self, names: Sequence[str], path: Path) -> Columns:
        """Take the columns to read of the first file for those of all; raises DataError if the file has others."""
        columns = columns_to_read(names, self._options, self._flags)
        if self._columns is None:
            self._columns = columns
            self._times = None if columns.time is None else TimeColumn(columns.time.flag)
            self._rows = Gathered(self._times, self._bad)
        elif columns != self._columns:
            raise DataError(f"has a column for times where {self._first} has none, or the other way round")
        return self._columns

    def _gather(self, rows: Iterable[Row], path: Path) -> None:
        self._bad.file = f"{path}, " if self._several else ""
        if self._times is not None:
            self._times.file = str(path) if self._several else ""
        before = len(self._rows)
        for row in rows:
            self._rows.add(row)
        if not before and not len(self._rows):
            raise DataError("holds no events, only a header")

    def reading(self, files: list[str]) -> Reading:
        """Return what all files have."""
        if self._times is not None:
            self._times.file = ""
        finished = Finished(self._parts(), self._options, self._flags)
        if not finished.sessions:
            raise DataError("holds no events")
        ends = [end for end in finished.ends if end is not None]
        words = [self._form_in_words(), *self._counts_in_words(), *finished.words()]
        record = {
            "files": files,
            "read_as": words[0],
            "options": self._options.changed(),
            "sessions": len(finished.sessions),
            "events": sum(map(len, finished.sessions)),
            "bad_rows": self._bad.count,
            "duplicates": self._rows.duplicates,
            "repeats": finished.repeats,
        }
        return Reading(finished.sessions, ends or None, ", ".join(words), record)

    def _parts(self) -> Iterator[Part]:
        if self._columns is None:
            return ((session, None) for session in self._sessions)
        return self._rows.parts(self._options.gap)

    def _form_in_words(self) -> str:
        if self._columns is None:
            return str(self._form)
        time = self._columns.time
        what = "JSON lines" if self._form == "jsonl" else "a table"
        return f"{what}, ordered by {time.name!r}" if time else f"{what}, in the file's order"

    def _counts_in_words(self) -> Iterator[str]:
        if self._options.session_gap is not None:
            kind = "user" if self._options.user_column else "session"
            yield f"{counted(len(self._rows), kind)} cut at gaps of more than {self._options.session_gap}"
        if self._rows.duplicates:
            yield f"{counted(self._rows.duplicates, 'duplicate')} (the session, item and time of another event) kept"
        if self._bad.count:
            yield self._bad.words()


def _pieces(text: str, length: int) -> Sessions:
    return [list(text[at : at + length]) for at in range(0, len(text), length)]


def _up_to_content(lines: Iterator[str]) -> list[str]:
    """Return the lines up to the first that is not blank."""
    top = []
    for line in lines:
        top.append(line)
        if line.strip():
            break
    return top
