"""The sequence graph: a Scan over time around that part of the step graph which hands the state on.

What the step computes beside, such as the scores, has no place in the loop: it is done behind it, for all steps of all
rows at once.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from arraylstm_export.dataflow import dims, handed_on, needed_for, rows_of, without
from arraylstm_export.graphs import check_signature, finish, value_of
from arraylstm_export.naming import constant_name
from arraylstm_export.runners import Array
from arraylstm_export.signature import Interface, State, Tensor

_STEP, _ROWS = "step/", "rows/"


def sequence_graph(step: ModelProto, interface: Interface) -> ModelProto:
    """Wrap the step graph in a Scan over time.

    Inputs items (B, S), S at least 1, and lengths (B), and the state; outputs logits (B, S, V) and diagnostics, zero from a
    row's length on, and the state of every row after its own length. A length above S counts as S, one below 0 as 0.
    Ids from a row's length on are not looked at.
    """
    cut, nodes = _cut(step.graph, interface), _Nodes()
    alive = _whether_alive(nodes)
    _scan(nodes, cut, interface.states, alive)
    _behind(nodes, cut, interface.series, alive)
    graph = helper.make_graph(
        nodes.nodes,
        "sequence",
        [value_of(tensor) for tensor in interface.sequence.inputs],
        [value_of(tensor) for tensor in interface.sequence.outputs],
        [*step.graph.initializer, *nodes.weights(but_for=cut.weights)],
    )
    model = finish(graph, step.opset_import, step.ir_version)
    check_signature(model, interface.sequence)
    return model


@dataclass(frozen=True)
class _Cut:
    """A step's nodes: those in the loop, those that are run behind it, and what the former give the latter."""

    inside: list[NodeProto]
    behind: list[NodeProto]
    given: list[ValueInfoProto]
    weights: set[str]

    def renamed(self, nodes: Iterable[NodeProto], prefix: str) -> list[NodeProto]:
        """Return the nodes with every value they compute or are fed prefixed; weights are the same everywhere."""
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
    """Keep in the loop what the next state needs, and what is not computed row by row from what the loop gives."""
    weights = {tensor.name for tensor in step.initializer} | {""}
    by_row = rows_of(step)
    whole = {name for node in step.node for name in (*node.input, *node.output)} - by_row - weights
    inside = needed_for([state.output.name for state in interface.states], step.node)
    while True:
        behind = without(step.node, inside)
        held = [name for node in behind if whole & set(node.input) for name in node.output]
        if not held:
            break
        inside = needed_for([name for node in inside for name in node.output] + held, step.node)
    given = handed_on(inside, behind, [tensor.name for tensor in interface.series])
    described = {value.name: value for value in (*step.value_info, *step.output)}
    return _Cut(inside, behind, [described[name] for name in given], weights)


class _Nodes:
    """Collects nodes, and the constants that they take as inputs."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}

    def add(self, kind: str, *inputs: str | Array, name: str, **attributes: Any) -> str:
        """Append a node of one output, which its name is, and return that."""
        named = [self._constant(value) if isinstance(value, np.ndarray) else value for value in inputs]
        self.nodes.append(helper.make_node(kind, named, [name], name=name, **attributes))
        return name

    def weights(self, but_for: Collection[str]) -> list[TensorProto]:
        """Return the constants, but for those of some names, which a graph has already."""
        return [numpy_helper.from_array(value, name) for name, value in self.constants.items() if name not in but_for]

    def _constant(self, value: Array) -> str:
        name = constant_name(value)
        self.constants[name] = value
        return name


def _whether_alive(nodes: _Nodes) -> str:
    """Add whether each row still goes on at each step, (S, B)."""
    zero, one = np.array(0), np.array(1)
    steps = nodes.add("Squeeze", nodes.add("Shape", "items", name="steps_list", start=1), name="steps")
    clock = nodes.add("Range", zero, steps, one, name="clock")
    return nodes.add("Less", nodes.add("Unsqueeze", clock, one, name="clock_by_row"), "lengths", name="alive_by_step")


def _scan(nodes: _Nodes, cut: _Cut, states: Sequence[State], alive: str) -> None:
    """Add the loop, which is fed with the items by step, and whether each row goes on, in the states' ranks."""
    ranks = sorted({len(state.input.shape) for state in states})
    items = nodes.add("Transpose", "items", name="items_by_step", perm=[1, 0])
    cleared = nodes.add("Where", alive, items, np.array(0), name="cleared_by_step")
    going = [_widened(nodes, alive, rank - 1, f"alive_by_step_{rank}") for rank in ranks]
    scan = helper.make_node(
        "Scan",
        [*(state.input.name for state in states), *going, cleared],
        [*(state.output.name for state in states), *(f"{value.name}_by_step" for value in cut.given)],
        name="scan",
        body=_body(cut, states, ranks),
        num_scan_inputs=len(ranks) + 1,
    )
    nodes.nodes.append(scan)


def _body(cut: _Cut, states: Sequence[State], ranks: Sequence[int]) -> GraphProto:
    """Return the loop's body: nodes of the step, then the choice between stepped and frozen rows."""
    nodes = _Nodes()
    nodes.nodes += cut.renamed(cut.inside, _STEP)
    for state in states:
        alive = f"alive_{len(state.input.shape)}"
        nodes.add("Where", alive, _STEP + state.output.name, _STEP + state.input.name, name=f"kept_{state.output.name}")
    arguments = [
        *(Tensor(_STEP + state.input.name, state.dtype, state.input.shape) for state in states),
        *(Tensor(f"alive_{rank}", "bool", ("B", *[1] * (rank - 1))) for rank in ranks),
        Tensor(f"{_STEP}items", "int64", ("B",)),
    ]
    kept = [Tensor(f"kept_{state.output.name}", state.dtype, state.output.shape) for state in states]
    given = [helper.make_tensor_value_info(_STEP + v.name, v.type.tensor_type.elem_type, dims(v)) for v in cut.given]
    return helper.make_graph(nodes.nodes, "step", [*map(value_of, arguments)], [*map(value_of, kept), *given])


def _behind(nodes: _Nodes, cut: _Cut, series: Sequence[Tensor], alive: str) -> None:
    """Add the rest of the step, over the steps of all rows as one batch, and zeros past the rows' lengths."""
    for value in cut.given:
        _, *features = dims(value)
        axes = [1, 0, *range(2, 2 + len(features))]
        by_row = nodes.add("Transpose", f"{value.name}_by_step", name=f"{value.name}_by_row", perm=axes)
        nodes.add("Reshape", by_row, np.array([-1, *features]), name=_ROWS + value.name)
    nodes.nodes += cut.renamed(cut.behind, _ROWS)
    by_row = nodes.add("Transpose", alive, name="alive_by_row", perm=[1, 0])
    lead = nodes.add("Shape", "items", name="batch_and_steps")
    for tensor in series:
        _, *features = tensor.shape
        shape = nodes.add("Concat", lead, np.array(features, np.int64), name=f"shape_of_{tensor.name}", axis=0)
        whole = nodes.add("Reshape", _ROWS + tensor.name, shape, name=f"unbounded_{tensor.name}", allowzero=1)
        within = _widened(nodes, by_row, len(features), f"alive_in_{tensor.name}")
        nodes.add("Where", within, whole, np.array(0, np.float32), name=tensor.name)


def _widened(nodes: _Nodes, alive: str, features: int, name: str) -> str:
    """Add as many axes of length 1 behind the two that `alive` has."""
    return nodes.add("Unsqueeze", alive, np.arange(2, 2 + features), name=name) if features else alive
