"""The sequence graph: a Scan over time around the part of the step graph that computes the next state.

The rest of the step, such as the scores, is not in the loop: it runs after it, for all steps of all rows at once.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from arraylstm_export.arrays import Array
from arraylstm_export.graph.edit import (
    checked_model,
    described,
    dims,
    needed_for,
    passed_on,
    value_of,
    values_by_row,
    without,
)
from arraylstm_export.graph.names import constant_name
from arraylstm_export.interface import Interface, State, TensorSpec

_STEP, _ROWS = "step/", "rows/"


def sequence_graph(step: ModelProto, interface: Interface) -> ModelProto:
    """Wrap the step graph in a Scan over time.

    Inputs are items (B, S) with S at least 1, lengths (B), and the state. Outputs are logits (B, S, V) and diagnostics,
    which are zero from a row's length on, and the state of every row after its own length. A length above S counts as
    S, a negative one as 0. Item ids from a row's length on are ignored.
    """
    cut, nodes = _cut(step.graph, interface), _Nodes()
    alive = _whether_alive(nodes)
    _scan(nodes, cut, interface.states, alive)
    _after(nodes, cut, interface.series, alive)
    graph = helper.make_graph(
        nodes.nodes,
        "sequence",
        [value_of(tensor) for tensor in interface.sequence.inputs],
        [value_of(tensor) for tensor in interface.sequence.outputs],
        [*step.graph.initializer, *nodes.weights(except_for=cut.weights)],
    )
    return checked_model(graph, interface.sequence, step.opset_import, step.ir_version)


@dataclass(frozen=True)
class _Cut:
    """The nodes of a step in the loop and after it, and the values that the loop gives to the nodes after it."""

    inside: list[NodeProto]
    after: list[NodeProto]
    given: list[ValueInfoProto]
    weights: set[str]

    def renamed(self, nodes: Iterable[NodeProto], prefix: str) -> list[NodeProto]:
        """Return the nodes with a prefix on every value that they compute or take; weights keep their names."""
        result = []
        for original in nodes:
            node = NodeProto()
            node.CopyFrom(original)
            node.name = original.name and prefix + original.name
            node.input[:] = [name if name in self.weights else prefix + name for name in original.input]
            node.output[:] = [prefix + name if name else "" for name in original.output]
            result.append(node)
        return result


def _cut(step: GraphProto, interface: Interface) -> _Cut:
    """Keep in the loop what the next state needs, and what cannot be computed row by row after it."""
    weights = {tensor.name for tensor in step.initializer} | {""}
    by_row = values_by_row(step)
    whole = {name for node in step.node for name in (*node.input, *node.output)} - by_row - weights
    inside = needed_for([state.output.name for state in interface.states], step.node)
    while True:
        after = without(step.node, inside)
        held = [name for node in after if whole & set(node.input) for name in node.output]
        if not held:
            break
        inside = needed_for([name for node in inside for name in node.output] + held, step.node)
    given = passed_on(inside, after, [tensor.name for tensor in interface.series])
    return _Cut(inside, after, described(given, step), weights)


class _Nodes:
    """Collects new nodes and the constants that they take."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}

    def add(self, kind: str, *inputs: str | Array, name: str, **attributes: Any) -> str:
        """Append a node with one output, both called `name`, and return the name."""
        named = [self._constant(value) if isinstance(value, np.ndarray) else value for value in inputs]
        self.nodes.append(helper.make_node(kind, named, [name], name=name, **attributes))
        return name

    def weights(self, except_for: Collection[str]) -> list[TensorProto]:
        """Return the constants, without those that the graph has already."""
        return [
            numpy_helper.from_array(value, name) for name, value in self.constants.items() if name not in except_for
        ]

    def _constant(self, value: Array) -> str:
        name = constant_name(value)
        self.constants[name] = value
        return name


def _whether_alive(nodes: _Nodes) -> str:
    """Add a mask (S, B) of the steps that are within their row's length."""
    zero, one = np.array(0), np.array(1)
    steps = nodes.add("Squeeze", nodes.add("Shape", "items", name="steps_list", start=1), name="steps")
    clock = nodes.add("Range", zero, steps, one, name="clock")
    return nodes.add("Less", nodes.add("Unsqueeze", clock, one, name="clock_by_row"), "lengths", name="alive_by_step")


def _scan(nodes: _Nodes, cut: _Cut, states: Sequence[State], alive: str) -> None:
    """Add the loop. Per step it takes the items and the mask, which is repeated for every rank that a state has."""
    ranks = sorted({len(state.input.shape) for state in states})
    items = nodes.add("Transpose", "items", name="items_by_step", perm=[1, 0])
    cleared = nodes.add("Where", alive, items, np.array(0), name="cleared_by_step")
    masks = [_widened(nodes, alive, rank - 1, f"alive_by_step_{rank}") for rank in ranks]
    scan = helper.make_node(
        "Scan",
        [*(state.input.name for state in states), *masks, cleared],
        [*(state.output.name for state in states), *(f"{value.name}_by_step" for value in cut.given)],
        name="scan",
        body=_body(cut, states, ranks),
        num_scan_inputs=len(ranks) + 1,
    )
    nodes.nodes.append(scan)


def _body(cut: _Cut, states: Sequence[State], ranks: Sequence[int]) -> GraphProto:
    """Return the loop's body: the nodes of the step, then a choice per row between its new and its old state."""
    nodes = _Nodes()
    nodes.nodes += cut.renamed(cut.inside, _STEP)
    for state in states:
        alive = f"alive_{len(state.input.shape)}"
        nodes.add("Where", alive, _STEP + state.output.name, _STEP + state.input.name, name=f"kept_{state.output.name}")
    arguments = [
        *(TensorSpec(_STEP + state.input.name, state.dtype, state.input.shape) for state in states),
        *(TensorSpec(f"alive_{rank}", "bool", ("B", *[1] * (rank - 1))) for rank in ranks),
        TensorSpec(f"{_STEP}items", "int64", ("B",)),
    ]
    kept = [TensorSpec(f"kept_{state.output.name}", state.dtype, state.output.shape) for state in states]
    given = [helper.make_tensor_value_info(_STEP + v.name, v.type.tensor_type.elem_type, dims(v)) for v in cut.given]
    return helper.make_graph(nodes.nodes, "step", [*map(value_of, arguments)], [*map(value_of, kept), *given])


def _after(nodes: _Nodes, cut: _Cut, series: Sequence[TensorSpec], alive: str) -> None:
    """Add the rest of the step, with all steps of all rows as one batch, and zeros from each row's length on."""
    for value in cut.given:
        _, *features = dims(value)
        axes = [1, 0, *range(2, 2 + len(features))]
        by_row = nodes.add("Transpose", f"{value.name}_by_step", name=f"{value.name}_by_row", perm=axes)
        nodes.add("Reshape", by_row, np.array([-1, *features]), name=_ROWS + value.name)
    nodes.nodes += cut.renamed(cut.after, _ROWS)
    by_row = nodes.add("Transpose", alive, name="alive_by_row", perm=[1, 0])
    lead = nodes.add("Shape", "items", name="batch_and_steps")
    for tensor in series:
        _, *features = tensor.shape
        shape = nodes.add("Concat", lead, np.array(features, np.int64), name=f"shape_of_{tensor.name}", axis=0)
        whole = nodes.add("Reshape", _ROWS + tensor.name, shape, name=f"unbounded_{tensor.name}", allowzero=1)
        within = _widened(nodes, by_row, len(features), f"alive_in_{tensor.name}")
        nodes.add("Where", within, whole, np.array(0, np.float32), name=tensor.name)


def _widened(nodes: _Nodes, alive: str, features: int, name: str) -> str:
    """Add that many axes of length 1 after the two that `alive` has."""
    return nodes.add("Unsqueeze", alive, np.arange(2, 2 + features), name=name) if features else alive
