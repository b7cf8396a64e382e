"""Locks on folders, which the system releases when the process that holds them ends, however it ends."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock on a folder.

    Raises:
        OSError: another process holds it, and `wait` is off.
    """
    with _locked_itself(folder, wait) if fcntl is not None else _locked_elsewhere(folder, wait):
        yield


@contextmanager
def _locked_itself(folder: Path, wait: bool) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _locked_elsewhere(folder: Path, wait: bool) -> Iterator[None]:
    """Hold a file that stands for the folder: Windows neither locks a folder nor moves one with an open file in it."""
    import filelock

    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    path = Path(tempfile.gettempdir()) / f"arraylstm-export-{name}.lock"
    try:
        with filelock.FileLock(path, timeout=-1 if wait else 0):
            yield
    except filelock.Timeout as error:
        raise BlockingIOError(f"{folder}: another process has locked it") from error
