"""A bundle's folder, written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arraylstm_export.errors import ExportError
from arraylstm_export.manifest import files_in, files_of_bundle


def check_target(target: Path) -> None:
    """Raise ExportError unless a bundle may take this name: nothing, an empty folder or another bundle is there."""
    if not target.parent.is_dir():
        raise ExportError(f"{target}: there is no folder {str(target.parent)!r} to write it in")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: is a file; name a folder")
    if target.is_dir() and set(files_in(target)) - files_of_bundle(target):
        raise ExportError(f"{target}: is a folder with other content than a bundle's; name a new or an empty folder")


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Yield a folder on the target's file system, removed at the end unless it was put in place."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_in_place(folder: Path, target: Path) -> None:
    """Give the finished folder the target's name; an older bundle goes only when the new one stands."""
    folder.chmod(0o755)
    if not target.exists():
        folder.replace(target)
        return
    with scratch_beside(target) as attic:
        old = target.replace(attic / "old")
        try:
            folder.replace(target)
        except BaseException:
            old.replace(target)
            raise
