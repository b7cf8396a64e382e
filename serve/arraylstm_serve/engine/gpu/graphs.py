"""The graphs that work on a device's rows: the step graph between a gather and a scatter, and two to read and write.

A device keeps each session as one row of a matrix in its memory: the states, the logits of the last step, and the
log-sum-exp of those logits, side by side. One gather reads the rows of a batch, and one scatter writes them: its input
and its output are that matrix. The scatter depends on the gathered rows, so it always runs after the gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from onnx import GraphProto, ModelProto, helper, parser

from arraylstm_serve.bundle.manifest import State

TOP = 16
"""How many of the most likely next items a step ranks on the device; all items if the model has fewer."""

_OPSET, _IR = 17, 8  # for the graphs that do not contain the model


class Layout(NamedTuple):
    """The parts of a row: the states, then the logits, then the log-sum-exp of the logits.

    Attributes:
        states: the states, in their order in the row.
        num_items: V, the number of logits.
    """

    states: tuple[State, ...]
    num_items: int

    @property
    def sizes(self) -> list[int]:
        """How many floats each state, the logits and the log-sum-exp take."""
        return [*(prod(state.shape) for state in self.states), self.num_items, 1]

    @property
    def width(self) -> int:
        """How many floats a row takes."""
        return sum(self.sizes)

    @property
    def top(self) -> int:
        """How many of the most likely next items a step ranks."""
        return min(TOP, self.num_items)


def read_graph(width: int) -> ModelProto:
    """Make the graph that reads the rows of slots: `feed` int64 (1, B) to `values` float32 (B, width)."""
    return _model(
        f"""read (float[slots, {width}] rows, int64[1, B] feed) => (float[B, {width}] values)
        <int64 first = {{0}}>
        {{
            row_slots = Gather <axis = 0> (feed, first)
            values = Gather <axis = 0> (rows, row_slots)
        }}"""
    )


def write_graph(width: int) -> ModelProto:
    """Make the graph that writes rows to slots: `feed` int64 (1, B), `values` float32 (B, width) to `next_rows`."""
    return _model(
        f"""write (float[slots, {width}] rows, int64[1, B] feed, float[B, {width}] values)
            => (float[slots, {width}] next_rows)
        <int64 first = {{0}}, int64[1] last_axis = {{1}}>
        {{
            row_slots = Gather <axis = 0> (feed, first)
            places = Unsqueeze (row_slots, last_axis)
            next_rows = ScatterND (rows, places, values)
        }}"""
    )


def step_graph(step: ModelProto, layout: Layout) -> ModelProto:
    """Make a bundle's step graph work on rows; the graph given is changed and returned.

    Inputs are `rows` (slots, width) and `feed` int64 (3, B): sources, targets and items. Outputs are

    - `next_rows`: the rows, with the targets written,
    - `scores` (B, 3 + top): the log-sum-exp of the new logits, the source row's logit for its item, the source row's
      log-sum-exp, and the logits of the most likely next items,
    - `places` int64 (B, 1 + top): the source row's rank for its item (1 is the most likely), and the ids of the most
      likely next items.
    """
    before, after = parser.parse_graph(_before(layout)), parser.parse_graph(_after(layout))
    nodes = [*before.node, *step.graph.node, *after.node]
    for field in ("input", "output", "node"):
        step.graph.ClearField(field)
    step.graph.input.extend(before.input)
    step.graph.output.extend(after.output)
    step.graph.node.extend(nodes)
    step.graph.initializer.extend([*before.initializer, *after.initializer])
    return step


def _before(layout: Layout) -> str:
    """Return the part before the step graph's nodes: it gathers the source rows and splits them into their parts."""
    flat = [f"row_flat_{n}" for n in range(len(layout.states))]
    shapes = [
        f"int64[{1 + len(state.shape)}] row_shape_{n} = {_listed([0, *state.shape])}"
        for n, state in enumerate(layout.states)
    ]
    reshaped = "\n".join(
        f'"state_{state.name}" = Reshape ({flat[n]}, row_shape_{n})' for n, state in enumerate(layout.states)
    )
    return f"""before (float[slots, {layout.width}] rows, int64[3, B] feed) => ()
        <int64 row_0 = {{0}}, int64 row_1 = {{1}}, int64 row_2 = {{2}}, int64[1] row_axis = {{1}},
         int64[{len(layout.sizes)}] row_sizes = {_listed(layout.sizes)}{_also(shapes)}>
        {{
            row_sources = Gather <axis = 0> (feed, row_0)
            row_targets = Gather <axis = 0> (feed, row_1)
            items = Gather <axis = 0> (feed, row_2)
            row_old = Gather <axis = 0> (rows, row_sources)
            {", ".join([*flat, "row_old_logits", "row_old_log_sum"])} = Split <axis = 1> (row_old, row_sizes)
            {reshaped}
        }}"""


def _after(layout: Layout) -> str:
    """Return the part after the step graph's nodes: it joins and stores the next rows, and computes the outputs."""
    flat = [f"row_next_{n}" for n in range(len(layout.states))]
    flattened = "\n".join(
        f'{flat[n]} = Flatten <axis = 1> ("next_state_{state.name}")' for n, state in enumerate(layout.states)
    )
    width, top = layout.width, layout.top
    return f"""after () => (float[slots, {width}] next_rows, float[B, {3 + top}] scores, int64[B, {1 + top}] places)
        <int64[1] row_top = {{{top}}}, int64[1] row_first = {{0}}, int64 row_best = {{1}}>
        {{
            row_tops, row_top_ids = TopK <axis = 1> (logits, row_top)
            row_largest = Gather <axis = 1> (row_tops, row_first)
            row_lowered = Sub (logits, row_largest)
            row_raised = Exp (row_lowered)
            row_sum = ReduceSum <keepdims = 1> (row_raised, row_axis)
            row_log = Log (row_sum)
            row_log_sum = Add (row_log, row_largest)

            {flattened}
            row_new = Concat <axis = 1> ({", ".join([*flat, "logits", "row_log_sum"])})
            row_places = Unsqueeze (row_targets, row_axis)
            next_rows = ScatterND (rows, row_places, row_new)

            row_items = Unsqueeze (items, row_axis)
            row_value = GatherElements <axis = 1> (row_old_logits, row_items)
            row_above = Greater (row_old_logits, row_value)
            row_ones = Cast <to = 1> (row_above)
            row_better = ReduceSum <keepdims = 1> (row_ones, row_axis)
            row_better_count = Cast <to = 7> (row_better)
            row_rank = Add (row_better_count, row_best)
            scores = Concat <axis = 1> (row_log_sum, row_value, row_old_log_sum, row_tops)
            places = Concat <axis = 1> (row_rank, row_top_ids)
        }}"""


def _listed(sizes: Sequence[int]) -> str:
    """Write sizes as a list in ONNX's text format."""
    return "{" + ", ".join(map(str, sizes)) + "}"


def _also(declarations: Sequence[str]) -> str:
    """Write declarations that continue a list, each after a comma."""
    return "".join(f", {declaration}" for declaration in declarations)


def _model(text: str) -> ModelProto:
    graph: GraphProto = parser.parse_graph(text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
