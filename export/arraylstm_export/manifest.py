"""manifest.json: what a bundle holds and what it was made from; written last, and read before anything else."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arraylstm_export.errors import ExportError
from arraylstm_export.signature import Interface, State, Trace

SCHEMA_VERSION = 1
MANIFEST, MANIFEST_HASH = "manifest.json", "manifest.sha256"


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest of all other files in the folder, and its own hash."""
    files = {name: _fingerprint(folder / name) for name in files_in(folder)}
    text = json.dumps({**content, "files": files}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    (folder / MANIFEST_HASH).write_bytes(_hash_line(folder))


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest, as it stands in the file."""

    folder: Path
    content: dict[str, Any]

    @property
    def formats(self) -> tuple[str, ...]:
        """What the bundle is written in."""
        return tuple(self.content["formats"])

    @property
    def interface(self) -> Interface:
        """What the bundle's forms take and give."""
        states = (State(s["name"], tuple(s["shape"]), s["dtype"], s["initial"]) for s in self.content["states"])
        traces = (Trace(t["name"], tuple(t["shape"])) for t in self.content["traces"])
        return Interface(self.content["model"]["num_items"], tuple(states), tuple(traces))

    def changes(self) -> list[str]:
        """Return what is wrong with the bundle's files, in words; nothing where they are as they were written."""
        expected, present = self.content["files"], set(files_in(self.folder)) - {MANIFEST, MANIFEST_HASH}
        wrong = [f"{name} is missing" for name in expected if name not in present]
        wrong += [f"{name} is not the bundle's" for name in sorted(present - set(expected))]
        wrong += [
            f"{name} was changed"
            for name in expected
            if name in present and _fingerprint(self.folder / name) != expected[name]
        ]
        if not (self.folder / MANIFEST_HASH).is_file():
            wrong.append(f"{MANIFEST_HASH} is missing")
        elif (self.folder / MANIFEST_HASH).read_bytes() != _hash_line(self.folder):
            wrong.append(f"{MANIFEST} was changed")
        return wrong


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        ExportError: the folder holds no bundle of this version.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(folder, content)
        found = content["schema_version"]
        if found == SCHEMA_VERSION:
            manifest.interface, manifest.formats, content["files"]
    except OSError as error:
        raise ExportError(f"{folder}: is no bundle: {MANIFEST}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{folder}: is no bundle: {MANIFEST} is not one of arraylstm-export ({error!r})") from None
    if found != SCHEMA_VERSION:
        raise ExportError(f"{folder}: has schema version {found!r}; this program reads {SCHEMA_VERSION}")
    return manifest


def files_in(folder: Path) -> list[str]:
    """Return the names of all files in the folder and below."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def files_of_bundle(folder: Path) -> set[str]:
    """Return the files that a bundle in this folder would account for; none where there is no bundle."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {MANIFEST, MANIFEST_HASH, *manifest["files"]} if "fingerprint" in manifest else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _hash_line(folder: Path) -> bytes:
    """Return what `sha256sum --check` reads."""
    return f"{_fingerprint(folder / MANIFEST)['sha256']}  {MANIFEST}\n".encode()


def _fingerprint(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
