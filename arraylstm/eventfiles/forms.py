"""Which form an event file has, by its first line and the options, and which of its columns are read."""

from collections.abc import Sequence
from typing import Literal

from arraylstm.errors import DataError
from arraylstm.eventfiles.jsonlines import parse_object
from arraylstm.eventfiles.options import EVENT_A_ROW, ITEM, SESSION, TIME, USED_BY, DataOptions, Format
from arraylstm.eventfiles.rows import Column, Columns
from arraylstm.eventfiles.table import fields
from arraylstm.eventfiles.times import NO_TIME

Form = Literal["lines", "table", "jsonl", "text"]
_LIKE_TIME = {"time", "timestamp", "datetime", "date", "ts"}
_TABLE_ALONE = set(USED_BY["table"]) - set(USED_BY["jsonl"])


def form_of(first: str, options: DataOptions) -> Form:
    """Return the form of a file whose first line with content is `first`."""
    if options.format != "auto":
        return options.format
    given = options.changed().keys()
    is_object = first.lstrip().startswith("{") and not given & _TABLE_ALONE
    named = given & {*EVENT_A_ROW, *_TABLE_ALONE} - {"bad_rows"}
    if named or {SESSION, ITEM} <= set(_keys(first) if is_object else fields(first)):
        return "jsonl" if is_object else "table"
    return "lines"


def names_of(first: str, form: Form, options: DataOptions) -> list[str]:
    """Return the names of the columns of a table, or the keys of an object, from a file's first line."""
    if form == "jsonl":
        return _keys(first)
    names = fields(first, options.separator)
    return [str(number) for number in range(1, len(names) + 1)] if options.headerless else names


def _keys(line: str) -> list[str]:
    """Return the keys of a line that is a JSON object; none for another line."""
    try:
        return list(parse_object(line) or ())
    except ValueError:
        return []


def check_used(form: Format, options: DataOptions, flags: str) -> None:
    """Raise DataError if an option would be ignored for files of a form; `auto` is not known yet."""
    if form == "auto":
        return
    said = f"{flags}format is {form!r}" if form == options.format else f"the file is read as {form!r}"
    for name in options.changed():
        if name == "format" or name in USED_BY[form]:
            continue
        flag = f"{flags}{name.replace('_', '-')}"
        if name == "text_length":
            raise DataError(f"{flag} describes text: give {flags}format text too, or leave it out")
        what = "is for sessions" if name in USED_BY["lines"] else "describes a table"
        raise DataError(f"{flag} {what}, but {said}: leave one of them out")


def check_parquet(options: DataOptions, flags: str) -> None:
    """Raise DataError if an option does not go with a Parquet file."""
    if options.format not in ("auto", "table"):
        raise DataError(f"is a Parquet file, but {flags}format is {options.format!r}: give {flags}format table")
    for name in options.changed().keys() & _TABLE_ALONE:
        raise DataError(f"is a Parquet file, for which {flags}{name} means nothing: leave it out")


def columns_to_read(names: Sequence[str], options: DataOptions, flags: str) -> Columns:
    """Return the columns to read, of a file with these ones.

    Raises:
        DataError: nothing is said of times, and a gap needs them, or a column may have them under another name than the
            default.
    """
    session, item = options.session_or_user or SESSION, options.item_column or ITEM
    time = options.time_column
    if time is None and (session, item) == (SESSION, ITEM):
        alike = [name for name in names if name.lower() in _LIKE_TIME]
        if alike and TIME not in names:
            raise DataError(
                f"has the column {alike[0]!r}, which may order its events: give {flags}time-column {alike[0]}, "
                f"or {flags}time-column {NO_TIME} to keep the file's order"
            )
        time = TIME if TIME in names else None
    if options.session_gap is not None and time is None:
        raise DataError(f"{flags}session-gap needs times: give {flags}time-column")
    return Columns(
        Column(session, f"{flags}{'user' if options.user_column else 'session'}-column"),
        Column(item, f"{flags}item-column"),
        None if time in (None, NO_TIME) else Column(time, f"{flags}time-column"),
    )
