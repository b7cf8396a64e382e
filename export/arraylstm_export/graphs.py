"""The ONNX graphs: the step graph that torch exports from the cell, and the sequence graph that scans that same step.

No cell is stated here. The step graph is what `torch.onnx.export` makes of `NextItemModel.step`; the sequence graph
is a Scan over time whose body is the step graph, with every row's state frozen at its length.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from arraylstm import NextItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.signature import Signature, State, Tensor, sequence_signature, states_of, step_signature

OPSET = 18
IR_VERSION = 10
_STEP = "step/"


class _Step(nn.Module):
    """`NextItemModel.step` with its state as separate arguments, which is how a graph takes it."""

    def __init__(self, model: NextItemModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, following = self.model.step(items, list(state))
        return (logits, *following)


def step_graph(model: NextItemModel) -> ModelProto:
    """Export one step of a model in eval mode: items (B), state -> logits (B, V), next state.

    Raises:
        ExportError: the exported graph's inputs and outputs are not the promised ones (a dimension was frozen, say).
    """
    states = states_of(model)
    signature = step_signature(states, model.num_items)
    batch = torch.export.Dim("B", min=1)
    with quiet():
        program = torch.onnx.export(
            _Step(model),
            (torch.zeros(2, dtype=torch.int64), *model.initial_state(2)),
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in signature.inputs],
            output_names=[tensor.name for tensor in signature.outputs],
            dynamic_shapes=({0: batch}, tuple({0: batch} for _ in states)),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # what torch.onnx.export returns with dynamo=True
    graph = program.model_proto.graph
    _strip(graph)
    model_proto = _finish(graph, "step")
    _check_signature(model_proto, signature)
    return model_proto


def sequence_graph(step: ModelProto, states: list[State], num_items: int) -> ModelProto:
    """Wrap the step graph in a Scan over time.

    Inputs items (B, S), S at least 1, and lengths (B) from 0 to S, and the state; outputs logits (B, S, V), zero from a
    row's length on, and the state of every row after its own length.
    """
    signature = sequence_signature(states, num_items)
    ranks = sorted({len(state.output.shape) for state in states} | {2})
    scan = helper.make_node(
        "Scan",
        ["clock", *(state.input.name for state in states), "items_by_step"],
        ["final_clock", *(state.output.name for state in states), "logits_by_step"],
        name="scan",
        body=_scan_body(step.graph, states, num_items, ranks),
        num_scan_inputs=1,
    )
    before = [helper.make_node("Unsqueeze", ["lengths", f"axes_{rank}"], [f"lengths_{rank}"]) for rank in ranks]
    before.append(helper.make_node("Transpose", ["items"], ["items_by_step"], perm=[1, 0]))
    after = helper.make_node("Transpose", ["logits_by_step"], ["logits"], perm=[1, 0, 2])
    constants: dict[str, np.ndarray[Any, Any]] = {
        "clock": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "no_logits": np.array(0, np.float32),
        **{f"axes_{rank}": np.arange(1, rank, dtype=np.int64) for rank in ranks},
    }
    graph = helper.make_graph(
        [*before, scan, after],
        "sequence",
        [_value(tensor) for tensor in signature.inputs],
        [_value(tensor) for tensor in signature.outputs],
        [*step.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    model_proto = _finish(graph, "sequence")
    _check_signature(model_proto, signature)
    return model_proto


def _scan_body(step: GraphProto, states: list[State], num_items: int, ranks: list[int]) -> GraphProto:
    """Return the loop's body: the step graph's nodes, then the choice between stepped and frozen rows."""
    frozen = {state.output.name: f"{_STEP}{state.input.name}" for state in states} | {"logits": "no_logits"}
    alive = [helper.make_node("Less", ["now", f"lengths_{rank}"], [f"alive_{rank}"]) for rank in ranks]
    outputs = step_signature(states, num_items).outputs
    choose = [
        helper.make_node(
            "Where",
            [f"alive_{len(tensor.shape)}", f"{_STEP}{tensor.name}", frozen[tensor.name]],
            [f"chosen_{tensor.name}"],
        )
        for tensor in outputs
    ]
    tick = helper.make_node("Add", ["now", "one"], ["then"])
    logits, *following = (_value(Tensor(f"chosen_{t.name}", t.dtype, t.shape)) for t in outputs)
    arguments = [_value(Tensor(f"{_STEP}{state.input.name}", state.dtype, state.input.shape)) for state in states]
    return helper.make_graph(
        [*_renamed(step), *alive, *choose, tick],
        "step",
        [_value(Tensor("now", "int64", ())), *arguments, _value(Tensor(f"{_STEP}items", "int64", ("B",)))],
        [_value(Tensor("then", "int64", ())), *following, logits],
    )


def _renamed(step: GraphProto) -> list[NodeProto]:
    """Return the step's nodes with every value they compute or are fed prefixed; weights stay outside the loop."""
    outside = {tensor.name for tensor in step.initializer} | {""}
    nodes = []
    for original in step.node:
        node = NodeProto()
        node.CopyFrom(original)
        node.input[:] = [name if name in outside else _STEP + name for name in original.input]
        node.output[:] = [name if name == "" else _STEP + name for name in original.output]
        nodes.append(node)
    return nodes


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    elements = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    return helper.make_tensor_value_info(tensor.name, elements[tensor.dtype], tensor.shape)


def _strip(graph: GraphProto) -> None:
    """Drop what the exporter wrote about the machine and source it ran on."""
    for part in [graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _finish(graph: GraphProto, name: str) -> ModelProto:
    graph.name = name
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="arraylstm"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_signature(model: ModelProto, signature: Signature) -> None:
    for promised, actual in (
        *zip(signature.inputs, model.graph.input, strict=True),
        *zip(signature.outputs, model.graph.output, strict=True),
    ):
        dims = tuple(dim.dim_param or dim.dim_value for dim in actual.type.tensor_type.shape.dim)
        if (actual.name, dims) != (promised.name, promised.shape):
            raise ExportError(
                f"{model.graph.name} graph: {promised.name} must be {list(promised.shape)}, "
                f"but {actual.name} {list(dims)} was exported"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporter, which logs about packages and operators that do not concern the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
