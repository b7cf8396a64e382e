"""What looks like a table, JSON or another form, and would be misread as sessions a line with blanks between items."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Set
from itertools import pairwise

from arraylstm.errors import DataError
from arraylstm.eventfiles.rows import listed
from arraylstm.eventfiles.source import shown
from arraylstm.eventfiles.table import DELIMITERS, fields
from arraylstm.eventfiles.times import looks_like_a_time

_SEPARATORS = {",": "commas", ";": "semicolons", "|": "'|'", "::": "'::'"}
_JSON = re.compile(r"""(\{\s*["'}]|\[\s*[\[{"]|[\[{]\s*$)""")
_COMMENTS = ("#", "%", "//", "-- ", ";")
_MARKUP = ("<?xml", "<!doctype", "<html", "@relation")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_TYPED = re.compile(r"\w+:(token|float)(_seq)?")


class Suspicion:
    """Judges the lines of a file: some signs are enough on one line, others if half of the lines have them.

    Args:
        flags: what the flags that messages name begin with.
        header: names of columns, which no session has as items.
    """

    def __init__(self, flags: str, header: Set[str]) -> None:
        self._flags, self._header = flags, header
        self._first, self._first_number = "", 0
        self._marked: Counter[str] = Counter()
        self._times: set[int] = set()  # places at which every line has a time
        self._numbers: set[int] = set()  # places at which the first line has a word and every other one a number
        self._width = 0  # items of every line; -1 if they differ

    def note(self, number: int, text: str, items: list[str]) -> None:
        """Take one more line into account: its number, its text without the blanks around it, its items.

        Raises:
            DataError: the line is enough to decide.
        """
        if not self._first:
            self._begin(number, text, items)
        self._times = {at for at in self._times if at < len(items) and looks_like_a_time(items[at])}
        if number > self._first_number:
            self._numbers = {at for at in self._numbers if at < len(items) and _is_number(items[at])}
            self._width = self._width if len(items) == self._width else -1
        if text.startswith(_COMMENTS):
            comment = f"line {number} looks like a comment: {shown(text)}"
            raise DataError(f"{comment}; remove comments, or {self._all_the_same()}")
        if "\t" in text:
            raise self._refusal("a table separated by tabs", number, text)
        if _CONTROL.search(text):
            raise self._refusal("fields separated by control characters", number, text)
        self._marked.update(_marks(text, items))

    def conclude(self, lines: int) -> None:
        """Raise DataError if half of the lines, or more, look like another form."""
        for mark, count in self._marked.most_common(1):
            if 2 * count >= lines:
                raise self._refusal(mark, self._first_number, self._first)
        if self._times:
            raise self._refusal("a table or log separated by blanks, with times", self._first_number, self._first)
        if lines > 1 and self._width > 1 and self._numbers:
            raise self._refusal("a table separated by blanks, with a header", self._first_number, self._first)

    def _begin(self, number: int, text: str, items: list[str]) -> None:
        self._first, self._first_number = text, number
        times = {at for at, item in enumerate(items) if looks_like_a_time(item)}
        self._times = times if len(times) < len(items) else set()  # all: they are ids as large as times
        self._numbers = {at for at, item in enumerate(items) if not _is_number(item)}
        self._width = len(items) if len(set(items)) == len(items) else -1  # a header repeats no name
        if _JSON.match(text):
            raise self._refusal("JSON", number, text)
        if text.lower().startswith(_MARKUP):
            raise self._refusal("a file in a markup language", number, text)
        if any(map(_TYPED.fullmatch, items)) or self._header <= set(items):
            raise self._refusal("a table", number, text)

    def _refusal(self, what: str, number: int, text: str) -> DataError:
        return DataError(
            f"looks like {what}, not like a session a line with blanks between its items: "
            f"line {number} is {shown(text)}{self._remedy(text)}; or {self._all_the_same()}"
        )

    def _all_the_same(self) -> str:
        return f"give {self._flags}format lines if each line is a session all the same"

    def _remedy(self, text: str) -> str:
        """Return what the columns of a line seem to be, and what to do if they are."""
        if _JSON.match(text):
            return _json_remedy(text, self._flags)
        columns = _columns(text)
        return f", with the columns {listed(columns)}: " + ", ".join(
            (
                *_repairs(text, columns, self._flags),
                f"give two names with {self._flags}session-column and {self._flags}item-column",
                f"and with {self._flags}time-column the one that has times, if any",
            )
        )


def _marks(text: str, items: list[str]) -> Iterator[str]:
    """Yield what a line looks like if it is not a session of items between blanks."""
    for sign, name in _SEPARATORS.items():
        if sign in text and _parts(text, sign):
            yield f"fields separated by {name}"
    if "=" in text and all("=" in item for item in items):
        yield "fields written as name=value"
    if '"' in text and any(item[0] == '"' for item in items):
        yield "items in quotes"
    if text[0] in "[(" and text[-1] in ")]" and items[0][-1] not in ")]":
        yield "lists in brackets"
    if len(items) > 1 and text.find(":") == len(items[0]) - 1:
        yield "a name with a colon before each line"


def _parts(text: str, sign: str) -> bool:
    """Return whether a sign parts a line into fields: it has no blank on either side, or all fields are without."""
    parts = text.split(sign)
    tight = (one and other and not one[-1].isspace() and not other[0].isspace() for one, other in pairwise(parts))
    return any(tight) or all(len(field.split()) == 1 for field in parts)


def _json_remedy(text: str, flags: str) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return ": write it as an object for each event, each on a line of its own"
    named = f"give two of them with {flags}session-column and {flags}item-column"
    return f", with the keys {listed(list(content))}: if each line is an event, {named}"


def _columns(text: str) -> list[str]:
    columns = fields(_CONTROL.sub("\t", text))
    return columns if len(columns) > 1 else text.split()


def _repairs(text: str, columns: list[str], flags: str) -> Iterator[str]:
    """Yield what a file needs before it can be read as a table."""
    if _CONTROL.search(text):
        yield "put a tab or comma for each control character"
    elif not any(sign in text for sign in DELIMITERS):
        yield "put a tab or comma between them"
    if (
        any(_is_number(column) or looks_like_a_time(column) for column in columns)
        or not all(columns)
        or len(set(columns)) < len(columns)
    ):
        yield f"give {flags}headerless if the first line is an event, and name columns by their numbers from 1"


def _is_number(text: str) -> bool:
    return text[:1] in "+-.0123456789" and re.fullmatch(r"[+-]?[\d.]+", text) is not None
