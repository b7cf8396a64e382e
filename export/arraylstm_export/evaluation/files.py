"""The files that an evaluation reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arraylstm import UnknownItemError, data
from arraylstm.data import DataOptions, Sessions
from arraylstm.vocabulary import Label
from arraylstm_export.arrays import Array
from arraylstm_export.errors import ExportError
from arraylstm_export.evaluation.sessions import Encoder

LABELS = {"1": True, "anomaly": True, "anomalous": True, "true": True} | {"0": False, "normal": False, "false": False}


def read(paths: Path | Sequence[Path], options: DataOptions) -> tuple[Sessions, str]:
    """Return the sessions of event files, and in words what was read; raises as `arraylstm.data.read` does."""
    reading = data.read(paths, options)
    sessions, events = len(reading.sessions), sum(map(len, reading.sessions))
    return reading.sessions, f"{reading.source}, read as {reading.words}: {sessions:,} sessions, {events:,} events"


def names(paths: Sequence[Path]) -> str:
    """Return the names of files, for messages and figures."""
    return ", ".join(map(str, paths))


def encoded(sessions: Sequence[Sequence[Label]], encode: Encoder, file: str = "") -> list[Array]:
    """Return the ids of sessions.

    Raises:
        ExportError: an item is unknown and refused; the message has the file, if it is given, and the session.
    """
    found = []
    for number, session in enumerate(sessions, start=1):
        try:
            found.append(encode(session))
        except UnknownItemError as error:
            raise ExportError(f"{f'{file}: ' if file else ''}session {number}: {error}") from None
    return found


def read_labels(path: Path, count: int, sessions: str) -> Array:
    """Return which sessions (N,) bool are anomalies, from a file with a line for each of those of `sessions`.

    Raises:
        ExportError: the file cannot be read, a line is no label, or there are not as many as sessions.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split()
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ExportError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    for number, line in enumerate(lines, start=1):
        if line.lower() not in LABELS:
            raise ExportError(f"{path}: label {number} is {line[:40]!r}; allowed are {', '.join(LABELS)}")
    if len(lines) != count:
        raise ExportError(f"{path}: has {len(lines)} labels, and {sessions} {count} sessions; give one for each")
    return np.array([LABELS[line.lower()] for line in lines])
