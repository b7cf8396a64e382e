"""What a server process does before and after all else: signals and standard streams."""

from __future__ import annotations

import io
import os
import signal
import sys

_signals: list[int] = []
_hangups: list[int] = []


_TO_STOP = (signal.SIGINT, signal.SIGTERM)
_TO_RENEW = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # Windows has none


def record_signals() -> list[int]:
    """Return the list of the signals that come while uvicorn does not handle them: before it serves, and after.

    No such signal ends the process, so its exit status stays 0.
    """
    for number in _TO_STOP:
        signal.signal(number, lambda number, _: _signals.append(number))
    for number in _TO_RENEW:
        signal.signal(number, lambda number, _: _hangups.append(number))
    return _signals


def ignore_signals() -> None:
    """Ignore the signals from now on, at the end of the process: Python's own end would let them kill it."""
    for number in (*_TO_STOP, *_TO_RENEW):
        signal.signal(number, signal.SIG_IGN)


def take_hangups() -> bool:
    """Return whether SIGHUP has come since the last call. It ends no process, whatever that is doing."""
    if not _hangups:
        return False
    _hangups.clear()  # one that comes in between is heeded with the others: the caller has yet to act
    return True


def open_standard_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file or connection would get a closed stream's number, and what is meant for the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def show_any_text() -> None:
    """Let standard output show an escape for a character that its encoding lacks, as standard error does anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # there is none where the descriptor was closed
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_unwritable_output() -> None:
    """Send output that cannot be written to the null device; else Python fails to write it at its end: status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # Python has none where the descriptor was closed when it started
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
