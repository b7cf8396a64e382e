"""`triton/`, a model repository for NVIDIA Triton: the step graph, with the state of every sequence kept by Triton.

A client sends one item per request under a sequence id, the first with `sequence_start`, and receives the logits.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto

from arraylstm_export.errors import ExportError
from arraylstm_export.formats.onnx import StepGraph
from arraylstm_export.formats.runner import Runner
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.interface import ZEROS, Interface, State, TensorSpec

_NAME = "arraylstm"
MODEL = f"{_NAME}/1/model.onnx"
"""The graph within the repository."""
_STARTS = f"{_NAME}/initial_state"
"""Where Triton looks for the files that sequences start from."""
FOLDER = "triton"
FILES = (f"{FOLDER}/{MODEL}",)
_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}

# By default Triton forgets a sequence after a second without requests. While `max_candidate_sequences` are alive, a new
# one waits.
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
      initial_state {{ name: "start of {input}" data_type: {type} dims: [ {dims} ] {start} }}
    }}"""


def write(graphs: GraphBuilder, folder: Path) -> None:
    """Write the repository."""
    write_repository(graphs.step, graphs.interface, folder / FOLDER)


def load(folder: Path, interface: Interface) -> dict[str, Runner]:
    """Load the repository's graph."""
    return {file: StepGraph(folder / file, interface) for file in FILES}


def write_repository(step: ModelProto, interface: Interface, folder: Path) -> None:
    """Write `arraylstm/config.pbtxt` and `arraylstm/1/model.onnx`; Triton then serves the model `arraylstm`.

    What a state starts from, if that is not zeros, is in `arraylstm/initial_state/<input>`, as little-endian float32.

    Args:
        step: the step graph.
        interface: its signature.
        folder: the repository, which is created if it does not exist.

    Raises:
        ExportError: Triton cannot keep one of the states.
    """
    config = repository_config(interface)
    (folder / MODEL).parent.mkdir(parents=True)
    (folder / _NAME / "config.pbtxt").write_text(config, encoding="utf-8", newline="\n")
    onnx.save(step, folder / MODEL)
    for state in interface.states:
        if state.initial != ZEROS:
            (folder / _STARTS).mkdir(exist_ok=True)
            (folder / _STARTS / state.input.name).write_bytes(state.start(1).astype("<f4").tobytes())


def repository_config(interface: Interface) -> str:
    """Return the text of config.pbtxt.

    Raises:
        ExportError: Triton cannot keep one of the states.
    """
    for state in interface.states:
        if not state.shape:
            raise ExportError(f"Triton: state {state.name!r} has no dimension besides the batch; it needs one at least")
    check_pairing([(state.input.name, state.output.name) for state in interface.states])
    return _CONFIG.format(
        name=_NAME,
        inputs=_tensor(interface.step.inputs[0]),
        outputs=",".join(map(_tensor, interface.series)),
        states=",".join(map(_state, interface.states)),
    )


def check_pairing(names: Sequence[tuple[str, str]]) -> None:
    """Check that sorting the states by their input names and by their output names gives the same order.

    Triton feeds the n-th output by name to the n-th input by name, whatever its configuration says
    (triton-inference-server/server issue 8586).

    Raises:
        ExportError: it does not, and Triton would exchange two states.
    """
    by_input, by_output = sorted(names), sorted(names, key=lambda pair: pair[1])
    for one, other in zip(by_input, by_output, strict=True):
        if one != other:
            raise ExportError(
                f"Triton: would feed {other[1]!r} to {one[0]!r}, as it pairs states by the order of their names; "
                "rename one of them"
            )


def _tensor(tensor: TensorSpec) -> str:
    """Return the entry for a tensor. One value per row is [ 1 ] to clients: Triton cannot describe less."""
    shape = tensor.shape[1:]
    reshape = "" if shape else " reshape { shape: [ ] }"
    kind = _TYPES[tensor.dtype]
    return f'\n  {{ name: "{tensor.name}" data_type: {kind} dims: [ {_dims(shape or (1,))} ]{reshape} }}'


def _state(state: State) -> str:
    start = "zero_data: true" if state.initial == ZEROS else f'data_file: "{state.input.name}"'
    return _STATE.format(
        input=state.input.name, output=state.output.name, type=_TYPES[state.dtype], dims=_dims(state.shape), start=start
    )


def _dims(shape: Sequence[int | str]) -> str:
    return ", ".join(map(str, shape))
