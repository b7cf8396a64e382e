"""Reading event files as sessions: one list of item labels each, in the order the events happened."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from arraylstm.errors import DataError
from arraylstm.eventfiles.forms import check_used
from arraylstm.eventfiles.options import DataOptions
from arraylstm.eventfiles.reader import Reader, Reading, Sessions
from arraylstm.eventfiles.source import STDIN
from arraylstm.eventfiles.times import Key

__all__ = ["DataOptions", "Reading", "Sessions", "read", "read_sessions", "split", "split_by_time"]

T = TypeVar("T")


def read_sessions(
    paths: str | Path | Sequence[str | Path], options: DataOptions, flags: str = "--"
) -> tuple[Sessions, str]:
    """Return the sessions of event files, and in words how they were read; everything else is as for `read`."""
    reading = read(paths, options, flags)
    return reading.sessions, reading.words


def read(paths: str | Path | Sequence[str | Path], options: DataOptions, flags: str = "--") -> Reading:
    """Read the sessions of event files, plain or packed with gzip or zstd, each in one pass.

    Events of one session may stand in several files. Without times, their order is that of the files as they are
    given. Besides the sessions themselves, reading takes eight bytes an event for times.

    Args:
        paths: a file, a pipe, `-` for the standard input, or a folder for the files in it, in the order of their names;
            or several of these.
        options: how to read them.
        flags: what the flags of these options begin with, for messages.

    Raises:
        DataError: an option does not go with the format; a file is missing, empty, given twice, neither UTF-8 nor
            Parquet, looks like another form than it would be read in, or than the files before it; or lacks a column;
            more rows than allowed have other fields than the header, no session, no item, or no time that can be read;
            `session_start` or `session_end` is an item of a file; or a package is needed. The message says what, and
            for a line of a file on which.
    """
    check_used(options.format, options, flags)
    files = _files([Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths])
    reader = Reader(options, flags, several=len(files) > 1)
    for path in files:
        with _naming(str(path)):
            reader.read(path)
    names = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
    with _naming(names):
        return reader.reading([str(path) for path in files])


def split(sessions: Sequence[T], fractions: Sequence[float], seed: int) -> list[list[T]]:
    """Split sessions at random: first the rest, then one part per fraction, of at least one session each.

    Raises:
        DataError: there are fewer sessions than parts, or the fractions leave none for the first part.
    """
    order = list(range(len(sessions)))
    random.Random(seed).shuffle(order)
    return _cut(sessions, order, fractions)


def split_by_time(sessions: Sequence[T], ends: Sequence[Key], fractions: Sequence[float]) -> list[list[T]]:
    """Split sessions by the time of their last event: the later parts have the later sessions.

    Args:
        sessions: the sessions.
        ends: the time of each one's last event.
        fractions: the share of each part after the first.

    Raises:
        DataError: as for `split`.
    """
    return _cut(sessions, sorted(range(len(sessions)), key=ends.__getitem__), fractions)


def _cut(sessions: Sequence[T], order: list[int], fractions: Sequence[float]) -> list[list[T]]:
    sizes = [max(1, round(fraction * len(order))) for fraction in fractions]
    if sum(sizes) >= len(order):
        raise DataError(f"{len(order)} sessions are too few to hold out {' and '.join(map(str, sizes))} of them")
    parts = []
    for size in reversed(sizes):
        order, part = order[:-size], order[-size:]
        parts.append(part)
    return [[sessions[index] for index in part] for part in [order, *reversed(parts)]]


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that paths mean: for a folder those in it, but hidden ones and those of `_SUCCESS`'s kind."""
    files: list[Path] = []
    for path in paths:
        if path != STDIN and path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] not in "._")
            if not inside:
                raise DataError(f"{path}: is a folder without files")
            files += inside
        else:
            files.append(path)
    if not files:
        raise DataError("no event file is given")
    seen: set[Path] = set()
    for file in files:
        where = file if file == STDIN else file.resolve()
        if where in seen:
            raise DataError(f"{file}: is given twice")
        seen.add(where)
    return files


@contextmanager
def _naming(files: str) -> Iterator[None]:
    """Put the names of files before what is said of them."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{files}: {error}") from None
    except OSError as error:
        raise DataError(f"{files}: {error.strerror or error}") from None
