"""The graphs that work on a device's rows: the step graph between gathers and scatters, and two to read and write.

A device keeps the sessions' states, and the logits of their last step, in matrices: one for each tensor, one row for
each session. A gather reads the rows of a batch, and a scatter writes them: its input and its output are the
same matrix. The places to write to take their shape from the rows that were read, so the scatter always runs after the
gather.

A scatter of whole rows (ScatterND) would be one operation less, but onnxruntime's kernel writes a row with one thread.
The inputs lie in the host's memory. Places and items are cast first: that copies them to the device, where every number
of a row can read its place again without the bus.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, ModelProto, helper, numpy_helper, parser

from arraylstm_serve.bundle.manifest import State
from arraylstm_serve.engine.gpu.top import likeliest

TOP = 16
"""How many of the most likely next items a step ranks on the device; all items if the model has fewer."""

_OPSET, _IR = 17, 8  # for the graphs that do not contain the model


class Matrix(NamedTuple):
    """One tensor of every row.

    Attributes:
        name: the name of the graphs' input; the output that overwrites it is `next_<name>`.
        tensor: the name of a row's tensor: `state_<name>`, or `logits`.
        shape: the shape of the tensor in one row.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many floats a row takes."""
        return prod(self.shape)


class Layout(NamedTuple):
    """The matrices that hold the rows: the states', and last the logits'.

    Attributes:
        states: the states.
        num_items: V, the number of logits.
        unknown: the id of the unknown item, which takes no place in a rank; None if there is none.
    """

    states: tuple[State, ...]
    num_items: int
    unknown: int | None = None

    @property
    def matrices(self) -> list[Matrix]:
        """All matrices, in the order of a row's tensors."""
        states = [Matrix(f"rows_{n}", f"state_{state.name}", state.shape) for n, state in enumerate(self.states)]
        return [*states, self.logits]

    @property
    def logits(self) -> Matrix:
        """The matrix of logits."""
        return Matrix("rows_logits", "logits", (self.num_items,))

    @property
    def top(self) -> int:
        """How many of the most likely next items a step ranks."""
        return min(TOP, self.num_items)


def read_graph(layout: Layout) -> ModelProto:
    """Make the graph that reads rows: `sources` int64 (B,) to `values_<name>` float32 (B, width) of each matrix."""
    names = layout.matrices
    read = "\n".join(f"values_{m.name} = Gather <axis = 0> ({m.name}, places)" for m in names)
    outputs = ", ".join(f"float[B, {m.width}] values_{m.name}" for m in names)
    return _model(
        f"read ({_inputs(names)}, int64[B] sources) => ({outputs}) {{ places = Cast <to = 6> (sources) {read} }}"
    )


def rank_graph(layout: Layout) -> ModelProto:
    """Make the graph that ranks as a step does: `sources` int64 (B,) to `tops` and `top_ids`, see `step_graph`."""
    m, top = layout.logits, likeliest("likely", layout.num_items, layout.top)
    return _model(
        f"""rank ({_inputs([m])}, int64[B] sources) => (float[B, {layout.top}] tops, int64[B, {layout.top}] top_ids)
        <{top.constants}> {{
            places = Cast <to = 6> (sources)
            read = Gather <axis = 0> ({m.name}, places)
            likely = LogSoftmax <axis = 1> (read)
            {top.nodes}
        }}"""
    )


def write_graph(layout: Layout) -> ModelProto:
    """Make the graph that writes rows: `targets` int64 (B, 1) and `values_<name>` to `next_<name>` of each matrix."""
    names = layout.matrices
    values = ", ".join(f"float[B, {m.width}] values_{m.name}" for m in names)
    written = "\n".join(_write(m.name, f"values_{m.name}", f"values_{m.name}") for m in names)
    return _model(
        f"""write ({_inputs(names)}, int64[B, 1] targets, {values}) => ({_outputs(names)})
        {{ row_targets = Cast <to = 6> (targets) {written} }}"""
    )


def step_graph(step: ModelProto, layout: Layout) -> ModelProto:
    """Make a bundle's step graph work on rows; the graph given is changed and returned.

    Inputs are the matrices, `sources` int64 (B,), `targets` int64 (B, 1) and `item_ids` int32 (B,). Outputs are

    - `next_<name>`: each matrix, with the targets written,
    - `tops` float32 (B, top), `top_ids` int64 (B, top): the log-probabilities and ids of the most likely next items,
    - `value` float32 (B, 1): the source row's log-probability of its item,
    - `above` float32 (B, 1): how many known items were more likely than that.
    """
    before, after = parser.parse_graph(_before(layout)), parser.parse_graph(_after(layout))
    nodes = [*before.node, *step.graph.node, *after.node]
    for field in ("input", "output", "node"):
        step.graph.ClearField(field)
    step.graph.input.extend(before.input)
    step.graph.output.extend(after.output)
    step.graph.node.extend(nodes)
    step.graph.initializer.extend([*before.initializer, *after.initializer])
    if layout.unknown is not None:
        mask = np.zeros((1, layout.num_items), np.float32)
        mask[0, layout.unknown] = -np.inf
        step.graph.initializer.append(numpy_helper.from_array(mask, "row_mask"))
    return step


def _before(layout: Layout) -> str:
    """Return the part before the step graph's nodes: it gathers the source rows and gives the states their shapes."""
    states, names = layout.matrices[:-1], layout.matrices
    shapes = ", ".join(f"int64[{1 + len(m.shape)}] shape_{m.name} = {_listed([0, *m.shape])}" for m in states)
    gathered = "\n".join(f"old_{m.name} = Gather <axis = 0> ({m.name}, row_sources)" for m in names)
    shaped = "\n".join(f'"{m.tensor}" = Reshape (old_{m.name}, shape_{m.name})' for m in states)
    return f"""before ({_inputs(names)}, int64[B] sources, int64[B, 1] targets, int32[B] item_ids) => () <{shapes}>
        {{
            row_sources = Cast <to = 6> (sources)
            row_targets = Cast <to = 6> (targets)
            items = Cast <to = 7> (item_ids)
            {gathered}
            {shaped}
        }}"""


def _after(layout: Layout) -> str:
    """Return the part after the step graph's nodes: it stores the next rows, and computes the outputs."""
    *states, last = layout.matrices
    flattened = "\n".join(f'flat_{m.name} = Flatten <axis = 1> ("next_{m.tensor}")' for m in states)
    written = "\n".join(_write(m.name, f"old_{m.name}", f"flat_{m.name}") for m in states)
    masked = "" if layout.unknown is None else "row_known = Add (row_expected, row_mask)"
    k, top = layout.top, likeliest("row_likely", layout.num_items, layout.top)
    return f"""after () => ({_outputs(layout.matrices)}, float[B, {k}] tops, int64[B, {k}] top_ids,
            float[B, 1] value, float[B, 1] above)
        <int64[1] row_axis = {{1}}, {top.constants}>
        {{
            row_likely = LogSoftmax <axis = 1> (logits)
            {top.nodes}

            {flattened}
            {written}
            {_write(last.name, f"old_{last.name}", "logits")}

            row_expected = LogSoftmax <axis = 1> (old_{last.name})
            row_items = Unsqueeze (items, row_axis)
            value = GatherElements <axis = 1> (row_expected, row_items)
            {masked}
            row_above = Greater ({"row_known" if masked else "row_expected"}, value)
            row_ones = Cast <to = 1> (row_above)
            above = ReduceSum <keepdims = 1> (row_ones, row_axis)
        }}"""


def _write(name: str, shaped: str, values: str) -> str:
    """Return the nodes that write values to the targets' rows of a matrix; `shaped` has the shape of the values."""
    return f"""
        extent_{name} = Shape ({shaped})
        places_{name} = Expand (row_targets, extent_{name})
        next_{name} = ScatterElements <axis = 0> ({name}, places_{name}, {values})"""


def _inputs(matrices: Iterable[Matrix]) -> str:
    return ", ".join(f"float[slots, {m.width}] {m.name}" for m in matrices)


def _outputs(matrices: Iterable[Matrix]) -> str:
    return ", ".join(f"float[slots, {m.width}] next_{m.name}" for m in matrices)


def _listed(sizes: Iterable[int]) -> str:
    """Write sizes as a list in ONNX's text format."""
    return "{" + ", ".join(map(str, sizes)) + "}"


def _model(text: str) -> ModelProto:
    graph: GraphProto = parser.parse_graph(text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
