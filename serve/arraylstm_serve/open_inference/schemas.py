"""The wire format of the Open Inference Protocol with Triton's extensions, as far as this server speaks it.

What Triton calls a sequence is a session here: sequence 42, and likewise "42", is the session "42" of /v1.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from arraylstm_serve.api.schemas import Natural, TopK

ModelName = Literal["arraylstm"]
"""What the exported model repository calls the model, and its version."""

ModelVersion = Literal["1"]
(MODEL,) = get_args(ModelName)
(VERSION,) = get_args(ModelVersion)

SequenceId = Annotated[
    Annotated[int, Meta(ge=0)] | str,
    Meta(
        description="The session concerned: a uint64, whose digits are the session's id, or that id itself. "
        '0 and "" stand for none: the items are walked from the initial state and nothing is kept.',
        examples=[42],
    ),
]
Shape = Annotated[list[Natural], Meta(description="[n] or [1, n]: n items, oldest first.", examples=[[2]])]
Datatype = Annotated[
    str,
    Meta(
        description="INT64: item ids, 0 to V - 1 whether or not the model has labels. BYTES: labels; a text that is no "
        "label stands for the integer label that it spells.",
        examples=["INT64"],
    ),
]
Name = Annotated[
    str,
    Meta(
        description="logits FP32 [1, V]; predictions [1, k], most likely first, BYTES labels or INT64 ids where the "
        "model has no labels; probabilities FP32 [1, k] of the same; step INT64 [1, 1], items consumed.",
        examples=["probabilities"],
    ),
]
Model = Annotated[str, Meta(examples=[MODEL])]
Version = Annotated[str, Meta(examples=[VERSION])]
InputName = Annotated[str, Meta(description="items", examples=["items"])]


class ErrorBody(Struct):
    """A refusal in the protocol's words."""

    error: Annotated[str, Meta(examples=["sequence 42 is not held; begin it with sequence_start"])]


class ServerMetadata(Struct):
    """The server, and the extensions of the protocol that it speaks."""

    name: Annotated[str, Meta(examples=["arraylstm-serve"])]
    version: Annotated[str, Meta(examples=["1.0.0"])]
    extensions: Annotated[list[str], Meta(examples=[["sequence", "binary_tensor_data"]])]


class ServerLive(Struct):
    """Whether the server lives."""

    live: bool


class ServerReady(Struct):
    """Whether the server takes requests."""

    ready: bool


class ModelReady(Struct):
    """Whether the model takes requests."""

    name: Model
    ready: bool


class TensorMetadata(Struct):
    """An input or output; -1 is a free dimension."""

    name: InputName
    datatype: Datatype
    shape: Annotated[list[int], Meta(examples=[[1, -1]])]


class ModelMetadata(Struct):
    """What goes into the model and what comes out unless asked otherwise."""

    name: Model
    versions: list[Version]
    platform: Annotated[str, Meta(examples=["onnxruntime_onnx"])]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Reshape(Struct):
    """The shape that the model sees in place of what clients send."""

    shape: list[int]


class ConfigTensor(Struct, omit_defaults=True):
    """An input or output in Triton's model configuration, without the batch dimension."""

    name: InputName
    data_type: Annotated[str, Meta(examples=["TYPE_INT64"])]
    dims: Annotated[list[int], Meta(examples=[[-1]])]
    reshape: Reshape | UnsetType = UNSET


class OldestStrategy(Struct):
    """Triton's strategy: the oldest requests first, of so many sequences at most."""

    max_candidate_sequences: int


class SequenceBatching(Struct):
    """How sequences are kept and batched."""

    max_sequence_idle_microseconds: int
    oldest: OldestStrategy


class ModelConfiguration(Struct):
    """The model configuration that Triton would have of this server."""

    name: Model
    backend: Annotated[str, Meta(examples=["onnxruntime"])]
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    sequence_batching: SequenceBatching


class InputParameters(Struct, frozen=True):
    """How an input's data comes."""

    binary_data_size: Annotated[Natural, Meta(description="Bytes of it after the JSON.")] | UnsetType = UNSET
    shared_memory_region: str | UnsetType = UNSET


class InputTensor(Struct):
    """The items, either in `data` or after the JSON."""

    name: InputName
    shape: Shape
    datatype: Datatype
    parameters: InputParameters = InputParameters()
    data: (
        Annotated[list[int | str | list[int | str]], Meta(description="Flat or nested.", examples=[[0, 1]])] | UnsetType
    ) = UNSET


class OutputParameters(Struct, frozen=True):
    """How an output is wanted."""

    binary_data: Annotated[bool, Meta(description="After the JSON instead of in it.")] | UnsetType = UNSET
    classification: int | UnsetType = UNSET
    shared_memory_region: str | UnsetType = UNSET


class RequestedOutput(Struct):
    """An output that is wanted."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class InferParameters(Struct, frozen=True):
    """Whose items they are, and what is wanted; parameters not listed here are ignored."""

    sequence_id: SequenceId = 0
    sequence_start: Annotated[bool, Meta(description="Begin the session anew, whatever was held of it.")] = False
    sequence_end: Annotated[bool, Meta(description="The session ends with these items.")] = False
    binary_data_output: Annotated[bool, Meta(description="What binary_data is where an output does not say.")] = False
    top_k: TopK = 10


class InferRequest(Struct):
    """Items of a sequence, consumed in order, and the outputs wanted after the last; the logits if none is named."""

    inputs: list[InputTensor]
    outputs: list[RequestedOutput] = []
    parameters: Annotated[InferParameters, Meta(examples=[{"sequence_id": 42, "sequence_start": True}])] = (
        InferParameters()
    )
    id: Annotated[str, Meta(description="Given back with the answer.", examples=["request-1"])] = ""


class BinaryData(Struct):
    """How much of an output comes after the JSON."""

    binary_data_size: int


class OutputTensor(Struct, omit_defaults=True):
    """An output, either in `data` or after the JSON."""

    name: Name
    datatype: Annotated[str, Meta(examples=["FP32"])]
    shape: Annotated[list[int], Meta(examples=[[1, 2]])]
    parameters: BinaryData | UnsetType = UNSET
    data: Annotated[list[float | str], Meta(examples=[[0.42, 0.21]])] | UnsetType = UNSET


class InferAnswer(Struct, omit_defaults=True):
    """The outputs wanted, in their order."""

    model_name: Model
    model_version: Version
    outputs: list[OutputTensor]
    id: str = ""
