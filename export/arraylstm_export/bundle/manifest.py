"""manifest.json: what a bundle holds and what it was made from; written last and read first."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from arraylstm_export.errors import ExportError
from arraylstm_export.formats.registry import FORMATS
from arraylstm_export.interface import Diagnostic, Interface, Signature, State, TensorSpec

SCHEMA_VERSIONS = (1, 2)
"""Version 2 may have numbers as a state's `initial`; a program that knows version 1 alone would start from zeros."""
MANIFEST, MANIFEST_HASH = "manifest.json", "manifest.sha256"


def write_manifest(folder: Path, content: Mapping[str, Any]) -> "Manifest":
    """Write the manifest of all other files in the folder, and the manifest's own hash; return the manifest."""
    files = {name: _file_entry(folder / name) for name in files_in(folder)}
    text = json.dumps({**content, "files": files}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    (folder / MANIFEST_HASH).write_bytes(_hash_line(folder))
    return Manifest(json.loads(text))


def schema_version(interface: Interface) -> int:
    """Return the lowest version that says all of an interface, so that older programs read what they can."""
    return 1 if interface.starts_from_zeros else 2


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest, as it is in the file."""

    content: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The hash of the model that the bundle was made from."""
        return str(self.content["fingerprint"])

    @property
    def model(self) -> dict[str, Any]:
        """The model's configuration."""
        return dict(self.content["model"])

    @property
    def precision(self) -> str:
        """The precision that the graphs compute in."""
        return str(self.content["precision"])

    @property
    def onnx_versions(self) -> tuple[int, int]:
        """The versions of the operator set and of the file."""
        return index(self.content["opset"]), index(self.content["ir_version"])

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that the bundle is written in."""
        return tuple(map(str, self.content["formats"]))

    @property
    def interface(self) -> Interface:
        """What the bundle's forms take and return."""
        states = map(state_from, self.content["states"])
        diagnostics = (Diagnostic(str(t["name"]), _shape(t)) for t in self.content["diagnostics"])
        return Interface(index(self.model["num_items"]), tuple(states), tuple(diagnostics))

    @property
    def graphs(self) -> dict[str, Signature]:
        """The signature of every graph, by its file."""
        return {file: signature_from(fields) for file, fields in self.content["graphs"].items()}

    @property
    def allowed(self) -> float:
        """The largest difference that passed."""
        return float(self.content["tolerance"]["allowed"])

    @property
    def reached(self) -> float:
        """The largest difference that was found."""
        return float(self.content["tolerance"]["reached"])

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that wrote it."""
        return dict(self.content["versions"])

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of every file except the manifest and its hash."""
        return {name: index(entry["bytes"]) for name, entry in self.content["files"].items()}

    def changes(self, folder: Path) -> list[str]:
        """Return a sentence for every file in the folder that is missing, additional or changed."""
        expected, present = self.content["files"], set(files_in(folder)) - {MANIFEST, MANIFEST_HASH}
        wrong = [f"{name} is missing" for name in expected if name not in present]
        wrong += [f"{name} does not belong to the bundle" for name in sorted(present - set(expected))]
        wrong += [
            f"{name} was changed"
            for name in expected
            if name in present and _file_entry(folder / name) != expected[name]
        ]
        if not (folder / MANIFEST_HASH).is_file():
            wrong.append(f"{MANIFEST_HASH} is missing")
        elif (folder / MANIFEST_HASH).read_bytes() != _hash_line(folder):
            wrong.append(f"{MANIFEST} was changed")
        return wrong


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        ExportError: the folder holds no bundle, or one of another schema version or in an unknown format.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(content)
        found = content["schema_version"]
        if found in SCHEMA_VERSIONS:
            _read_through(manifest)
    except OSError as error:
        raise ExportError(f"{folder}: is not a bundle: {MANIFEST}: {error.strerror or error}") from None
    except ExportError as error:
        raise ExportError(f"{folder / MANIFEST}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{folder}: is not a bundle: {MANIFEST} is not from arraylstm-export ({error!r})") from None
    if found not in SCHEMA_VERSIONS:
        known = " and ".join(map(str, SCHEMA_VERSIONS))
        raise ExportError(f"{folder}: has schema version {found!r}; this program reads {known}")
    for name in manifest.formats:
        if name not in FORMATS:
            raise ExportError(f"{folder}: is written in the unknown format {name!r}; known: {', '.join(FORMATS)}")
    return manifest


def state_from(fields: Mapping[str, Any]) -> State:
    """Return a state from its fields in JSON; raises what `State` does."""
    initial = fields["initial"]
    start = tuple(map(float, initial)) if isinstance(initial, list) else str(initial)
    return State(str(fields["name"]), _shape(fields), str(fields["dtype"]), start)


def signature_from(fields: Mapping[str, Any]) -> Signature:
    """Return a graph's signature from its fields in JSON."""
    inputs, outputs = (
        tuple(TensorSpec(str(t["name"]), str(t["dtype"]), tuple(t["shape"])) for t in fields[kind])
        for kind in ("inputs", "outputs")
    )
    return Signature(inputs, outputs)


def files_in(folder: Path) -> list[str]:
    """Return the names of all files in the folder and below."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def files_of_bundle(folder: Path) -> set[str]:
    """Return the files that belong to the bundle in this folder; none where there is no bundle."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {MANIFEST, MANIFEST_HASH, *manifest["files"]} if "fingerprint" in manifest else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _read_through(manifest: Manifest) -> None:
    """Read every property, so that a field that is missing or of another type is found here."""
    for name, member in vars(Manifest).items():
        if isinstance(member, property):
            getattr(manifest, name)


def _shape(fields: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(map(index, fields["shape"]))


def _hash_line(folder: Path) -> bytes:
    """Return the manifest's hash as `sha256sum --check` reads it."""
    return f"{_file_entry(folder / MANIFEST)['sha256']}  {MANIFEST}\n".encode()


def _file_entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
