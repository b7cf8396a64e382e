"""The types of the Open Inference Protocol with Triton's extensions, as far as this server supports it.

Triton's sequences are sessions here: sequence 42, or "42", is the session "42" of /v1.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from arraylstm_serve.api.schemas import Natural, TopK

ModelName = Literal["arraylstm"]
"""The model's name in the exported model repository; its version is next."""

ModelVersion = Literal["1"]
(MODEL,) = get_args(ModelName)
(VERSION,) = get_args(ModelVersion)

SequenceId = Annotated[
    Annotated[int, Meta(ge=0)] | str,
    Meta(
        description="The session: a uint64 whose digits are the session's id, or the id itself. "
        '0 and "" mean no session: the items run from the initial state and nothing is kept.',
        examples=[42],
    ),
]
Shape = Annotated[list[Natural], Meta(description="[n] or [1, n]: n items, oldest first.", examples=[[2]])]
Datatype = Annotated[
    str,
    Meta(
        description="INT64: item ids from 0 to V - 1, also if the model has labels. BYTES: labels; digits that are "
        "not a label as a text mean the integer label.",
        examples=["INT64"],
    ),
]
Name = Annotated[
    str,
    Meta(
        description="logits FP32 [1, V]; predictions [1, k], most likely first, BYTES labels, or INT64 ids if the "
        "model has no labels; probabilities FP32 [1, k] of the predictions; step INT64 [1, 1], items consumed.",
        examples=["probabilities"],
    ),
]
Model = Annotated[str, Meta(examples=[MODEL])]
Version = Annotated[str, Meta(examples=[VERSION])]
InputName = Annotated[str, Meta(description="items", examples=["items"])]


class ErrorBody(Struct):
    """A refusal in the protocol's form."""

    error: Annotated[
        str, Meta(examples=["inference request for sequence 42 to model 'arraylstm' must specify the START flag"])
    ]


class ServerMetadata(Struct):
    """The server, and the protocol's extensions that it supports."""

    name: Annotated[str, Meta(examples=["arraylstm-serve"])]
    version: Annotated[str, Meta(examples=["1.0.0"])]
    extensions: Annotated[list[str], Meta(examples=[["sequence", "binary_tensor_data"]])]


class ServerLive(Struct):
    """Whether the server is alive."""

    live: bool


class ServerReady(Struct):
    """Whether the server is ready for requests."""

    ready: bool


class ModelReady(Struct):
    """Whether the model is ready for requests."""

    name: Model
    ready: bool


class TensorMetadata(Struct):
    """An input or output; -1 in its shape means any size."""

    name: InputName
    datatype: Datatype
    shape: Annotated[list[int], Meta(examples=[[1, -1]])]


class ModelMetadata(Struct):
    """The model's inputs, and the outputs that it gives by default."""

    name: Model
    versions: list[Version]
    platform: Annotated[str, Meta(examples=["onnxruntime_onnx"])]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Reshape(Struct):
    """The shape that the model gets in place of the client's."""

    shape: list[int]


class ConfigTensor(Struct, omit_defaults=True):
    """An input or output in Triton's model configuration, without the batch dimension."""

    name: InputName
    data_type: Annotated[str, Meta(examples=["TYPE_INT64"])]
    dims: Annotated[list[int], Meta(examples=[[-1]])]
    reshape: Reshape | UnsetType = UNSET


class OldestStrategy(Struct):
    """Triton's strategy: the oldest requests first, for at most so many sequences."""

    max_candidate_sequences: int


class SequenceBatching(Struct):
    """How sequences are kept and batched."""

    max_sequence_idle_microseconds: int
    oldest: OldestStrategy


class ModelConfiguration(Struct):
    """The model's configuration in Triton's form."""

    name: Model
    backend: Annotated[str, Meta(examples=["onnxruntime"])]
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    sequence_batching: SequenceBatching


class InputParameters(Struct, frozen=True):
    """How an input's data are sent."""

    binary_data_size: (
        Annotated[Natural, Meta(description="How many bytes of the input follow the JSON.")] | UnsetType
    ) = UNSET
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
    """How to return an output."""

    binary_data: (
        Annotated[bool, Meta(description="Whether the data follow the JSON instead of being in it.")] | UnsetType
    ) = UNSET
    classification: int | UnsetType = UNSET
    shared_memory_region: str | UnsetType = UNSET


class RequestedOutput(Struct):
    """An output to return."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class InferParameters(Struct, frozen=True):
    """The sequence, and what to return; other parameters are ignored."""

    sequence_id: SequenceId = 0
    sequence_start: Annotated[
        bool, Meta(description="Begin the session from the initial state, even if it exists.")
    ] = False
    sequence_end: Annotated[bool, Meta(description="The session ends with these items.")] = False
    binary_data_output: Annotated[bool, Meta(description="The default of each output's binary_data.")] = False
    top_k: TopK = 10


class InferRequest(Struct):
    """Items to consume in order, and the outputs to return after the last one; by default the logits."""

    inputs: list[InputTensor]
    outputs: list[RequestedOutput] = []
    parameters: Annotated[InferParameters, Meta(examples=[{"sequence_id": 42, "sequence_start": True}])] = (
        InferParameters()
    )
    id: Annotated[str, Meta(description="Returned with the answer.", examples=["request-1"])] = ""


class BinaryData(Struct):
    """How many bytes of an output follow the JSON."""

    binary_data_size: int


class OutputTensor(Struct, omit_defaults=True):
    """An output, either in `data` or after the JSON."""

    name: Name
    datatype: Annotated[str, Meta(examples=["FP32"])]
    shape: Annotated[list[int], Meta(examples=[[1, 2]])]
    parameters: BinaryData | UnsetType = UNSET
    data: Annotated[list[float | str], Meta(examples=[[0.42, 0.21]])] | UnsetType = UNSET


class AnswerParameters(Struct):
    """What else there is to say of an answer."""

    unknown_items: Annotated[
        int,
        Meta(
            description="How many items the model has no label for: they were scored as its unknown item, or left out."
        ),
    ]


class InferAnswer(Struct, omit_defaults=True):
    """The requested outputs, in the order of the request."""

    model_name: Model
    model_version: Version
    outputs: list[OutputTensor]
    id: str = ""
    parameters: Annotated[AnswerParameters | UnsetType, Meta(description="There are some if items were unknown.")] = (
        UNSET
    )
