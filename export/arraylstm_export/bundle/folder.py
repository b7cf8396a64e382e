"""A bundle's folder, written whole or not at all.

It is written in a hidden scratch folder beside its target, locked by the writing process. The scratch folder is removed
however that process ends, except by SIGKILL or a power failure; then the next export removes it.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from arraylstm_export.bundle.locks import locked
from arraylstm_export.bundle.manifest import MANIFEST, files_in, files_of_bundle
from arraylstm_export.errors import ExportError

_NEW, _OLD = "new", "old"


def check_target(target: Path) -> None:
    """Raise ExportError unless there is nothing at the target, an empty folder, or another bundle."""
    if not target.parent.is_dir():
        raise ExportError(f"{target}: there is no folder {str(target.parent)!r} to write it in")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not _is_bundle(target):
        raise ExportError(
            f"{target}: is a folder that holds something other than a bundle; name a new or an empty folder"
        )


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and set(files_in(folder)) <= files_of_bundle(folder)


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Yield a folder on the target's file system, which is removed at the end unless it was put in place."""
    with ExitStack() as held:
        with locked(target.parent):
            _sweep(target)
            scratch = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
            held.callback(shutil.rmtree, scratch, ignore_errors=True)
            held.enter_context(locked(scratch))
        (scratch / _NEW).mkdir()
        yield scratch / _NEW


def put_in_place(folder: Path, target: Path) -> None:
    """Rename the finished scratch folder to the target; an older bundle is removed once the new one is there."""
    with locked(target.parent):
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
    """Remove the scratch folders of ended processes, and put back a bundle that one was about to replace."""
    for left in target.parent.iterdir():
        if left.name.startswith(_prefix(target)):
            with suppress(OSError), locked(left, wait=False):
                if not target.exists() and (left / _OLD).exists():
                    (left / _OLD).replace(target)
                shutil.rmtree(left)
