"""What a server process does before it imports the rest, which takes a second: signals and standard streams."""

from __future__ import annotations

import os
import signal

_signals: list[int] = []


def record_signals() -> list[int]:
    """Return the list of the signals that come while uvicorn does not handle them: before it serves, and after.

    No such signal ends the process, so its exit status stays 0.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _signals.append(number))
    return _signals


def open_standard_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file or connection would get a closed stream's number, and what is meant for the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
