"""What the command line programs share: how tables look, what a console can show, and how a failure ends."""

import io
import os
import signal
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from cyclopts import App
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from arraylstm.errors import ArrayLSTMError

BAD_INPUT, UNEXPECTED = 2, 70


class _LastingStream:
    """A stream whose writes never fail: from the first that does, what is written is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            print(f"standard output cannot be written, so it ends here: {error.strerror}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return len(text)

    def flush(self) -> None:
        """Do nothing: what is written is flushed."""


def lasting_console() -> Console:
    """Return a console on standard output that ends no long work: neither a full disk nor a closed pipe is an error."""
    return Console(file=cast(IO[str], _LastingStream(sys.stdout)))


def make_table(*headings: str, title: str | None = None) -> Table:
    """Return an empty table narrow enough for a terminal of 80 columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def show_any_text() -> None:
    """Let the standard streams show an escape for a character that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there is none where the program was started without
            stream.reconfigure(errors="backslashreplace")


def _with_standard_input(tokens: list[str]) -> list[str]:
    """Return a command's words with `./-`, which is the same path, for a `-` that cannot be the value of an option.

    The parser takes every word that begins with a hyphen for an option.
    """
    return [
        "./-" if token == "-" and not before.startswith("-") else token for before, token in pairwise(["", *tokens])
    ]


def run(app: App) -> NoReturn:
    """Run a program and exit with the status it returns; never show a traceback.

    Status 2 is bad input, 130 or 143 an interrupt or a request to stop, 70 an unexpected error, shown with its place.
    """
    show_any_text()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that unfinished work is cleaned up
    try:
        sys.exit(app(_with_standard_input(sys.argv[1:])))
    except (ArrayLSTMError, ValueError, OSError) as error:
        print(f"{app.name[0]}: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print(f"{app.name[0]}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        print(f"{app.name[0]}: unexpected, please report it: {what}", file=sys.stderr)
        sys.exit(UNEXPECTED)
