"""Sessions a line, items between blanks."""

import re
from collections.abc import Iterable

from arraylstm.errors import DataError
from arraylstm.eventfiles.source import shown
from arraylstm.eventfiles.suspicion import Suspicion

_ITEM = re.compile(r"[^ \t\n\r\v\f]+")
"""What stands between blanks, which are ASCII's: a no-break space is part of an item."""


def read_lines(lines: Iterable[str], suspicion: Suspicion | None = None) -> list[list[str]]:
    """Return the items of every line that has some.

    Args:
        lines: all lines of the file.
        suspicion: what judges whether the file has another form; None takes it as it stands.

    Raises:
        DataError: a line holds a carriage return, or the file looks like another form; the message says like which.
    """
    sessions = []
    for number, line in enumerate(lines, start=1):
        items = _ITEM.findall(line)
        if not items:
            continue
        if "\r" in line.rstrip("\r\n"):
            raise DataError(f"line {number} holds a carriage return that ends no line: {shown(line)}")
        if suspicion:
            suspicion.note(number, line.strip(), items)
        sessions.append(items)
    if suspicion:
        suspicion.conclude(len(sessions))
    return sessions
