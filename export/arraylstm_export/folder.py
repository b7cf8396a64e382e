"""A bundle's folder, written whole or not at all.

It grows in a hidden scratch folder beside its target, locked by the process that writes it. Whatever ends that process
but SIGKILL or a loss of power removes the scratch folder; what those leave is swept away by the next export.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from arraylstm_export.errors import ExportError
from arraylstm_export.manifest import MANIFEST, files_in, files_of_bundle

_NEW, _OLD = "new", "old"


def check_target(target: Path) -> None:
    """Raise ExportError unless a bundle may take this name: nothing, an empty folder or another bundle is there."""
    if not target.parent.is_dir():
        raise ExportError(f"{target}: there is no folder {str(target.parent)!r} to write it in")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not _is_bundle(target):
        raise ExportError(f"{target}: is a folder with other content than a bundle's; name a new or an empty folder")


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and set(files_in(folder)) <= files_of_bundle(folder)


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Yield a folder on the target's file system, removed at the end unless it was put in place."""
    with ExitStack() as held:
        with _locked(target.parent):
            _sweep(target)
            scratch = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
            held.callback(shutil.rmtree, scratch, ignore_errors=True)
            held.enter_context(_locked(scratch))
        (scratch / _NEW).mkdir()
        yield scratch / _NEW


def put_in_place(folder: Path, target: Path) -> None:
    """Give the finished scratch folder the target's name; an older bundle goes only when the new one stands."""
    with _locked(target.parent):
        if not target.exists():
            folder.replace(target)
            return
        old = target.replace(folder.parent / _OLD)
        try:
            folder.replace(target)
        except BaseException:
            old.replace(target)
            raise


def _prefix(target: Path) -> str:
    return f".{target.name}.arraylstm-export-"


def _sweep(target: Path) -> None:
    """Remove scratch folders whose process is no more, and put back a bundle that one was about to replace."""
    for left in target.parent.iterdir():
        if left.name.startswith(_prefix(target)):
            with suppress(OSError), _locked(left, fcntl.LOCK_NB):
                if not target.exists() and (left / _OLD).exists():
                    (left / _OLD).replace(target)
                shutil.rmtree(left)


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """Hold a lock on the folder, which the system lets go of with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)
