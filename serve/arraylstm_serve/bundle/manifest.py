"""The JSON files of a bundle: the fields that the server reads."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from arraylstm_serve.api.schemas import Item

SCHEMA_VERSIONS = (1, 2)
"""Version 2 may have numbers as a state's `initial`."""
ZEROS = "zeros"
MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
VOCABULARY = "vocabulary.json"
STEP_GRAPH = "step.onnx"

Size = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(examples=["h"])]
Dtype = Annotated[str, Meta(examples=["float32"])]


class ModelConfig(Struct):
    """The fields of the model's configuration that the server needs."""

    num_items: Size
    cell: Annotated[str, Meta(examples=["array"])]


class State(Struct, frozen=True):
    """A recurrent state; each session has one array of `shape`, which starts from zeros or from the given numbers."""

    name: Name
    shape: Annotated[tuple[Size, ...], Meta(examples=[[4, 128]])]
    dtype: Dtype
    initial: Annotated[str, Meta(examples=[ZEROS])] | tuple[float, ...]


class Tensor(Struct, frozen=True):
    """An input or output of a graph. A dimension is a size, or a name if any size is allowed."""

    name: Name
    dtype: Dtype
    shape: Annotated[tuple[int | str, ...], Meta(examples=[["B", 4, 128]])]


class Graph(Struct):
    """The inputs and outputs of one ONNX file."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class FileEntry(Struct):
    """The size and checksum that a file of the bundle must have."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", examples=["0f" * 32])]
    bytes: Annotated[int, Meta(ge=0)]


class Manifest(Struct):
    """The fields of manifest.json that the server needs."""

    schema_version: Annotated[int, Meta(examples=[1])]
    fingerprint: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$", examples=[f"sha256:{'0f' * 32}"])]
    model: ModelConfig
    states: list[State]
    graphs: dict[str, Graph]
    files: dict[str, FileEntry]


class VocabularyFile(Struct):
    """The content of vocabulary.json."""

    labels: list[Item] | None
    unknown: Item | None


class SchemaVersion(Struct):
    """The one field that every version of manifest.json has."""

    schema_version: Annotated[int, Meta(examples=[1])]
