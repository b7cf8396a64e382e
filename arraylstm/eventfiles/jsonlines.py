"""JSON lines: an event an object, a line each."""

import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from arraylstm.eventfiles.rows import BadRows, Column, Columns, Row, listed
from arraylstm.eventfiles.source import shown

_LONGEST = 100
"""Digits of an integer."""


def parse_object(line: str) -> dict[str, Any] | None:
    """Return the object that a line holds, with numbers that are exact; None if it holds something else.

    Raises:
        ValueError: it is not JSON, or an object has a key twice.
    """
    try:
        content = json.loads(
            line, parse_float=Decimal, parse_int=_integer, parse_constant=_refuse, object_pairs_hook=_once
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return content if isinstance(content, dict) else None


def read_json_lines(lines: Iterable[str], columns: Columns, bad: BadRows) -> Iterator[Row]:
    """Yield the events of a file with an object a line; blank lines are passed over.

    Sessions and items are text or integers, and 5 is the same as "5". Times may be any number or text.

    Args:
        lines: all lines of the file.
        columns: the keys to read.
        bad: takes lines that hold no such object.

    Raises:
        DataError: there are too many bad rows. The message has the file's line and its text.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            yield _row(place, parse_object(line), columns)
        except ValueError as error:
            bad.leave_out(f"{place} {error}: {shown(line)}")


def _row(place: str, event: dict[str, Any] | None, columns: Columns) -> Row:
    """Return an event; raises ValueError with the end of a message."""
    if event is None:
        raise ValueError("is no JSON object")
    session, item = (_text(event, column, int) for column in columns[:2])
    lacking = columns.missing(session, item)
    if lacking:
        raise ValueError(lacking)
    return Row(place, session, item, None if columns.time is None else _text(event, columns.time, int, Decimal))


def _text(event: dict[str, Any], column: Column, *numbers: type) -> str:
    if column.name not in event:
        raise ValueError(f"has no key {column.name!r}, but {listed(list(event))} (give {column.flag})")
    value = event[column.name]
    if value is None:
        return ""
    if type(value) not in (str, *numbers):
        allowed = "a number or text" if Decimal in numbers else "text or an integer"
        raise ValueError(f"has in {column.name!r} a value that is not {allowed}")
    text = str(value).strip()
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"has in {column.name!r} half of a character, a lone surrogate")
    return text


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("has a key twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST:
        raise ValueError(f"has an integer of {len(digits)} digits")
    return int(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"is not JSON: {constant} is no number")
