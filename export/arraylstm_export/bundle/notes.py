"""What is found out about a bundle after it was written, and kept in its manifest, where other programs may read it."""

import shutil
from pathlib import Path
from typing import Any

from arraylstm_export.bundle.folder import put_in_place, scratch_beside
from arraylstm_export.bundle.manifest import MANIFEST, MANIFEST_HASH, read_manifest, write_manifest
from arraylstm_export.errors import ExportError


def note(folder: Path, key: str, value: Any) -> None:
    """Put a value for JSON into a bundle's manifest, under a key that servers ignore.

    The bundle is replaced as a whole by a copy with the other manifest, so that no one finds half of it.

    Raises:
        ExportError: the folder holds no bundle, one that was changed, or it cannot be written.
    """
    target = folder.resolve()
    manifest = read_manifest(target)
    for change in manifest.changes(target):
        raise ExportError(f"{folder}: {change}")
    try:
        with scratch_beside(target) as copy:
            shutil.copytree(target, copy, dirs_exist_ok=True)
            for name in (MANIFEST, MANIFEST_HASH):
                (copy / name).unlink()
            write_manifest(copy, {**manifest.content, key: value})
            put_in_place(copy, target)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror or error}") from None
