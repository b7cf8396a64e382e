"""The ONNX graphs: the step graph that torch exports from the cell, and the sequence graph that scans that same step.

No cell is stated here. The step graph is what `torch.onnx.export` makes of `ItemModel.step`; the sequence graph
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

from arraylstm import ItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.signature import Interface, Signature, Tensor

OPSET = 18
IR_VERSION = 10
_STEP = "step/"


class _Step(nn.Module):
    """`ItemModel.step` with its state as separate arguments, which is how a graph takes it."""

    def __init__(self, model: ItemModel, traced: bool) -> None:
        super().__init__()
        self.model = model
        self.traced = traced

    def forward(self, items: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, following, traces = self.model.step_traced(items, list(state))
        return (logits, *following, *(traces if self.traced else ()))


def step_graph(model: ItemModel, interface: Interface) -> ModelProto:
    """Export one step of a model in eval mode: items (B), state -> logits (B, V), next state, traces.

    Raises:
        ExportError: the exported graph's inputs and outputs are not the promised ones (a dimension was frozen, say).
    """
    batch = torch.export.Dim("B", min=1)
    example = (torch.zeros(2, dtype=torch.int64), *model.initial_state(2))
    dynamic = ({0: batch}, tuple({0: batch} for _ in interface.states))
    return export_graph("step", _Step(model, traced=bool(interface.traces)), example, dynamic, interface.step)


def export_graph(
    name: str, module: nn.Module, example: tuple[torch.Tensor, ...], dynamic: tuple[Any, ...], signature: Signature
) -> ModelProto:
    """Export a module through torch's exporter, and hold the graph to its signature.

    Raises:
        ExportError: the exported graph's inputs and outputs are not the promised ones (a dimension was frozen, say).
    """
    with quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in signature.inputs],
            output_names=[tensor.name for tensor in signature.outputs],
            dynamic_shapes=dynamic,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # what torch.onnx.export returns with dynamo=True
    graph = program.model_proto.graph
    _strip(graph)
    model_proto = _finish(graph, name)
    _check_signature(model_proto, signature)
    return model_proto


def sequence_graph(step: ModelProto, interface: Interface) -> ModelProto:
    """Wrap the step graph in a Scan over time.

    Inputs items (B, S), S at least 1, and lengths (B), and the state; outputs logits (B, S, V) and traces, zero from a
    row's length on, and the state of every row after its own length. A length above S counts as S, one below 0 as 0.
    Ids from a row's length on are not looked at.
    """
    signature, states = interface.sequence, interface.states
    series = _series(interface)
    ranks = sorted({len(tensor.shape) for tensor in interface.step.outputs})
    scan = helper.make_node(
        "Scan",
        [*(state.input.name for state in states), "alive_by_step", "cleared_by_step"],
        [*(state.output.name for state in states), *(f"{tensor.name}_by_step" for tensor in series)],
        name="scan",
        body=_scan_body(step.graph, interface, ranks),
        num_scan_inputs=2,
    )
    before = [
        helper.make_node("Transpose", ["items"], ["items_by_step"], perm=[1, 0]),
        helper.make_node("Shape", ["items"], ["steps_1"], start=1),
        helper.make_node("Squeeze", ["steps_1"], ["steps"]),
        helper.make_node("Range", ["zero", "steps", "one"], ["clock"]),
        helper.make_node("Unsqueeze", ["clock", "one"], ["clock_2"]),
        helper.make_node("Less", ["clock_2", "lengths"], ["alive_by_step"]),
        helper.make_node("Where", ["alive_by_step", "items_by_step", "zero"], ["cleared_by_step"]),
    ]
    after = [
        helper.make_node("Transpose", [f"{t.name}_by_step"], [t.name], perm=[1, 0, *range(2, len(t.shape) + 1)])
        for t in series
    ]
    constants: dict[str, np.ndarray[Any, Any]] = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "nothing": np.array(0, np.float32),
        **{f"axes_{rank}": np.arange(1, rank, dtype=np.int64) for rank in ranks},
    }
    graph = helper.make_graph(
        [*before, scan, *after],
        "sequence",
        [_value(tensor) for tensor in signature.inputs],
        [_value(tensor) for tensor in signature.outputs],
        [*step.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    model_proto = _finish(graph, "sequence")
    _check_signature(model_proto, signature)
    return model_proto


def _series(interface: Interface) -> list[Tensor]:
    """Return the step's outputs that the sequence has one of for every step: all but the states."""
    states = {state.output for state in interface.states}
    return [tensor for tensor in interface.step.outputs if tensor not in states]


def _scan_body(step: GraphProto, interface: Interface, ranks: list[int]) -> GraphProto:
    """Return the loop's body: the step graph's nodes, then the choice between stepped and frozen rows."""
    frozen = {state.output.name: f"{_STEP}{state.input.name}" for state in interface.states}
    alive = [helper.make_node("Unsqueeze", ["alive", f"axes_{rank}"], [f"alive_{rank}"]) for rank in ranks]
    choose = [
        helper.make_node(
            "Where",
            [f"alive_{len(tensor.shape)}", f"{_STEP}{tensor.name}", frozen.get(tensor.name, "nothing")],
            [f"chosen_{tensor.name}"],
        )
        for tensor in interface.step.outputs
    ]
    arguments = [Tensor(f"{_STEP}{s.input.name}", s.dtype, s.input.shape) for s in interface.states]
    carried = [state.output for state in interface.states] + _series(interface)
    results = [Tensor(f"chosen_{tensor.name}", tensor.dtype, tensor.shape) for tensor in carried]
    return helper.make_graph(
        [*_renamed(step), *alive, *choose],
        "step",
        [_value(t) for t in (*arguments, Tensor("alive", "bool", ("B",)), Tensor(f"{_STEP}items", "int64", ("B",)))],
        [_value(t) for t in results],
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
    elements = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
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
