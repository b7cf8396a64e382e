"""Read an exported bundle, and verify each of its files."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from stat import S_ISREG
from typing import Self, TypeVar

import msgspec

from arraylstm_serve.bundle.external_data import external_files
from arraylstm_serve.bundle.manifest import (
    CHECKSUM,
    MANIFEST,
    SCHEMA_VERSIONS,
    STEP_GRAPH,
    VOCABULARY,
    ZEROS,
    FileEntry,
    Graph,
    Manifest,
    SchemaVersion,
    State,
    VocabularyFile,
)
from arraylstm_serve.bundle.vocabulary import Vocabulary
from arraylstm_serve.errors import BundleError, cause
from arraylstm_serve.text import shortened, shown

Decoded = TypeVar("Decoded")

LARGEST_MANIFEST = 2**24
"""Most bytes of manifest.json and of its checksum file. No hash is known for these two before they are read."""

LARGEST_FLOAT = (2 - 2**-23) * 2.0**127
"""The largest finite number in float32."""

MODEL_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""How the files are called that hold a model before its export."""

READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""How files are opened: without waiting for the writer of a pipe, and on Windows as they are."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its directory.
        manifest: the fields of manifest.json that the server needs.
        document: manifest.json as the exporter wrote it.
        vocabulary: item labels and ids.
        labels: vocabulary.json as the exporter wrote it.
    """

    path: Path
    manifest: Manifest
    document: bytes
    vocabulary: Vocabulary
    labels: bytes

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a bundle and verify each of its files.

        Raises:
            BundleError: a file is missing, unreadable or changed, or has content that the server does not understand.
        """
        with _unreadable(path):
            if path.is_file() and path.suffix in MODEL_SUFFIXES:
                raise BundleError(
                    f"{path} is a model, and the server takes a bundle: export it first, {_export(path)}."
                )
            if not path.is_dir():
                raise BundleError(f"{path} is not a directory; expected a bundle written by arraylstm-export.")
        raw = _read(path / MANIFEST, LARGEST_MANIFEST)
        version = _decode(raw, SchemaVersion, path / MANIFEST).schema_version
        if version not in SCHEMA_VERSIONS:
            known = " and ".join(map(str, SCHEMA_VERSIONS))
            raise BundleError(f"{path / MANIFEST} has schema_version {version}; this server reads {known}.")
        _verify_manifest(path, raw)
        manifest = _decode(raw, Manifest, path / MANIFEST)
        _verify_contents(path, manifest)
        if version == 1 and any(state.initial != ZEROS for state in manifest.states):
            raise BundleError(
                f"{path / MANIFEST} has schema_version 1, in which all states start from zeros, and names another."
            )
        labels = _read(path / VOCABULARY)
        return cls(path, manifest, raw, _decode_vocabulary(labels, path / VOCABULARY, manifest), labels)

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint, `sha256:` and 64 hexadecimal digits."""
        return self.manifest.fingerprint

    @property
    def step_path(self) -> Path:
        """The path of the graph that steps each row by one item."""
        return self.path / STEP_GRAPH

    @property
    def step_graph(self) -> Graph:
        """The inputs and outputs that the manifest promises for the step graph."""
        return self.manifest.graphs[STEP_GRAPH]


def only_bundle(folder: Path) -> Path:
    """Return the folder if it is a bundle, else the one bundle that lies in it.

    Raises:
        BundleError: there is none, or several; the message says what there is.
    """
    with _unreadable(folder):
        if (folder / MANIFEST).is_file():
            return folder
        found = sorted(folder.iterdir())
        bundles = [path for path in found if (path / MANIFEST).is_file()]
        models = [path for path in found if path.is_file() and path.suffix in MODEL_SUFFIXES]
    if len(bundles) == 1:
        return bundles[0]
    if bundles:
        raise BundleError(f"there are {len(bundles)} bundles in this folder; name one of them: {_some(bundles)}.")
    if models:
        raise BundleError(
            f"there is no bundle in this folder, but a model: {_some(models)}; export it first, {_export(models[0])}."
        )
    raise BundleError("there is no bundle in this folder; name one, a folder that arraylstm-export wrote.")


def _export(model: Path) -> str:
    """Return the command that exports a model, and the one that serves the bundle."""
    words = shlex.quote(str(model)), shlex.quote(str(model.with_suffix("")))
    return "`arraylstm-export {}`, then `arraylstm-serve {}`".format(*words)


def _some(paths: list[Path]) -> str:
    return shortened(", ".join(shlex.quote(str(path)) for path in paths), 200)


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Turn an error in reading a path into a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {cause(error)}.") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file; yield it and its size.

    Raises:
        BundleError: the file cannot be read, or is a folder, a pipe or a device, which might never end.
    """
    with _unreadable(path):
        if path.is_dir():  # cannot be opened
            raise BundleError(f"{path} is not a regular file.")
        with os.fdopen(os.open(path, READING), "rb") as file:
            facts = os.fstat(file.fileno())
            if not S_ISREG(facts.st_mode):
                raise BundleError(f"{path} is not a regular file.")
            yield file, facts.st_size


def _read(path: Path, limit: int | None = None) -> bytes:
    """Return the content of a regular file of at most `limit` bytes."""
    with _opened(path) as (file, size):
        if limit is not None and size > limit:
            raise BundleError(f"{path} has {size} bytes; at most {limit} are allowed.")
        return file.read()


def _decode(raw: bytes, kind: type[Decoded], path: Path) -> Decoded:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BundleError(f"{path} does not have the expected fields: {shortened(str(error), 200)}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {shortened(str(error), 200)}.") from error


def _verify_manifest(path: Path, raw: bytes) -> None:
    """Check the manifest against its checksum file, a line that `sha256sum -c` reads."""
    expected = f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n"
    if _read(path / CHECKSUM, LARGEST_MANIFEST) != expected.encode():
        raise BundleError(f"{path / MANIFEST} was changed: {path / CHECKSUM} does not have its sha256.")


def _verify_contents(path: Path, manifest: Manifest) -> None:
    for name in (STEP_GRAPH, VOCABULARY, *manifest.graphs):
        if name not in manifest.files:
            raise BundleError(f"{path / MANIFEST} lists no {shown(name)} in files; the server needs it.")
    if STEP_GRAPH not in manifest.graphs:
        raise BundleError(f"{path / MANIFEST} describes no {STEP_GRAPH} in graphs; the server needs it.")
    for name, entry in manifest.files.items():
        _verify_file(path, name, entry)
    for name in manifest.graphs:
        _verify_weights(path, name, manifest)
    for state in manifest.states:
        if state.dtype != "float32" or not _can_start(state):
            initial = state.initial if isinstance(state.initial, str) else f"{len(state.initial)} numbers"
            raise BundleError(
                f"{path / MANIFEST} declares state {state.name} as {state.dtype}, initially {initial}; this server "
                f"keeps float32 states that start from zeros, or from the {prod(state.shape)} finite numbers of a row."
            )


def _can_start(state: State) -> bool:
    """Return whether the server knows what a session starts from: zeros, or as many float32 numbers as a row has."""
    if isinstance(state.initial, str):
        return state.initial == ZEROS
    return len(state.initial) == prod(state.shape) and all(abs(number) <= LARGEST_FLOAT for number in state.initial)


def _verify_file(folder: Path, name: str, entry: FileEntry) -> None:
    if _leaves(PurePosixPath(name)) or _leaves(PureWindowsPath(name)) or not name.isprintable():
        raise BundleError(
            f"{folder / MANIFEST} lists {shown(name)} in files; "
            "every file must lie inside the bundle and have a printable name."
        )
    path = folder / name
    with _opened(path) as (file, size):
        if size != entry.bytes:
            raise BundleError(f"{path} has {size} bytes; the manifest says {entry.bytes}.")
        seen = hashlib.file_digest(file, "sha256").hexdigest()
    if seen != entry.sha256:
        raise BundleError(f"{path} has sha256 {seen[:12]}...; the manifest says {entry.sha256[:12]}...")


def _leaves(name: PurePath) -> bool:
    """Return whether a name in a folder may lead out of it; on Windows a drive or a first backslash does."""
    return bool(name.anchor) or ".." in name.parts


def _verify_weights(folder: Path, name: str, manifest: Manifest) -> None:
    """Check that every file with weights of a graph is one that the manifest lists."""
    path = folder / name
    with _unreadable(path):
        try:
            locations = external_files(path)
        except ValueError as error:
            raise BundleError(f"{path} is not an ONNX graph: {error}.") from error
    for location in sorted(os.fsdecode(location) for location in locations):
        if (Path(name).parent / location).as_posix() not in manifest.files:
            raise BundleError(
                f"{path} keeps weights in {shown(location)}, which {folder / MANIFEST} does not list in files."
            )


def _decode_vocabulary(raw: bytes, file: Path, manifest: Manifest) -> Vocabulary:
    content = _decode(raw, VocabularyFile, file)
    try:
        return Vocabulary(manifest.model.num_items, content.labels, content.unknown)
    except ValueError as error:
        raise BundleError(f"{file} does not fit the model: {error}.") from error
