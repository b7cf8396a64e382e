"""A model repository for NVIDIA Triton: the step graph, with the state of every sequence kept by the server.

A client sends one item per request under a sequence id, the first with `sequence_start`, and receives the logits.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto

from arraylstm_export.errors import ExportError
from arraylstm_export.signature import Interface, State, Tensor

_NAME = "arraylstm"
MODEL = f"{_NAME}/1/model.onnx"
_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}

# Triton lets a sequence go after a second without requests unless told otherwise, and lets a new one wait while
# `max_candidate_sequences` are alive.
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 64
input [{inputs}
]
output [{outputs}
]
sequence_batching {{
  max_sequence_idle_microseconds: 1800000000
  oldest {{ max_candidate_sequences: 4096 }}
  state [{states}
  ]
}}
"""
_STATE = """
    {{
      input_name: "{input}"
      output_name: "{output}"
      data_type: {type}
      dims: [ {dims} ]
      initial_state {{ name: "zeros of {input}" data_type: {type} dims: [ {dims} ] zero_data: true }}
    }}"""


def write_repository(step: ModelProto, interface: Interface, folder: Path) -> None:
    """Write `arraylstm/config.pbtxt` and `arraylstm/1/model.onnx` into the folder; Triton serves `arraylstm`.

    Args:
        step: the step graph.
        interface: its signature.
        folder: the repository, which is created if need be.

    Raises:
        ExportError: Triton cannot keep such a state.
    """
    config = repository_config(interface)
    (folder / MODEL).parent.mkdir(parents=True)
    (folder / _NAME / "config.pbtxt").write_text(config, encoding="utf-8")
    onnx.save(step, folder / MODEL)


def repository_config(interface: Interface) -> str:
    """Return the text of config.pbtxt.

    Raises:
        ExportError: Triton cannot keep such a state.
    """
    for state in interface.states:
        if not state.shape:
            raise ExportError(f"Triton: state {state.name!r} is one number per row; it keeps states of 1 dimension up")
    check_pairing([(state.input.name, state.output.name) for state in interface.states])
    return _CONFIG.format(
        name=_NAME,
        inputs=_tensor(interface.step.inputs[0]),
        outputs=",".join(map(_tensor, interface.series)),
        states=",".join(map(_state, interface.states)),
    )


def check_pairing(names: Sequence[tuple[str, str]]) -> None:
    """Check that states' input and output names, as pairs, stand in the same order when each side is sorted.

    Triton hands the n-th output by name to the n-th input by name, whatever its configuration says
    (triton-inference-server/server issue 8586).

    Raises:
        ExportError: they do not, and two states would be exchanged.
    """
    by_input, by_output = sorted(names), sorted(names, key=lambda pair: pair[1])
    for one, other in zip(by_input, by_output, strict=True):
        if one != other:
            raise ExportError(
                f"Triton: would feed {other[1]!r} to {one[0]!r}, for it pairs states by the order of their names; "
                "rename one of them"
            )


def _tensor(tensor: Tensor) -> str:
    """Return an entry for a tensor; one value per row is [ 1 ] to clients, which Triton knows no less than."""
    shape = tensor.shape[1:]
    reshape = "" if shape else " reshape { shape: [ ] }"
    kind = _TYPES[tensor.dtype]
    return f'\n  {{ name: "{tensor.name}" data_type: {kind} dims: [ {_dims(shape or (1,))} ]{reshape} }}'


def _state(state: State) -> str:
    return _STATE.format(
        input=state.input.name, output=state.output.name, type=_TYPES[state.dtype], dims=_dims(state.shape)
    )


def _dims(shape: Sequence[int | str]) -> str:
    return ", ".join(map(str, shape))
