"""The graphs that move sessions where they lie: the step graph between a gather and a scatter, and smaller ones.

All that a device keeps of a session is one row of a matrix in its memory: the states, the logits of the last step, and
the log of the sum of their exponentials, side by side. One gather reads a batch's rows and one scatter, whose input and
output are that matrix, writes them; it needs what was gathered, so it comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from onnx import GraphProto, ModelProto, helper, parser

from arraylstm_serve.bundle.manifest import State

TOP = 16
"""How many of the most likely next items a step ranks on the device, where there are so many."""

_OPSET, _IR = 17, 8  # of the graphs that have no model in them


class Layout(NamedTuple):
    """What a row holds.

    Attributes:
        states: the states, which come first.
        num_items: V, the width of the logits, which come next.
    """

    states: tuple[State, ...]
    num_items: int

    @property
    def sizes(self) -> list[int]:
        """Floats of each state, of the logits and of the log-sum-exp."""
        return [*(prod(state.shape) for state in self.states), self.num_items, 1]

    @property
    def width(self) -> int:
        """Floats of a row."""
        return sum(self.sizes)

    @property
    def top(self) -> int:
        """How many of the most likely next items a step ranks."""
        return min(TOP, self.num_items)


def read_graph(width: int) -> ModelProto:
    """The rows of some slots: `feed` int64 (1, B) to `values` (B, width)."""
    return _model(
        f"""read (float[slots, {width}] rows, int64[1, B] feed) => (float[B, {width}] values)
        <int64 first = {{0}}>
        {{
            row_slots = Gather <axis = 0> (feed, first)
            values = Gather <axis = 0> (rows, row_slots)
        }}"""
    )


def write_graph(width: int) -> ModelProto:
    """Rows into some slots: `feed` int64 (1, B) and `values` (B, width) to `next_rows`."""
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
    """A bundle's step graph over rows; the graph given is changed to it.

    Inputs are `rows` (slots, width) and `feed` int64 (3, B): sources, targets and items. Outputs are

    - `next_rows`: the rows, with the targets written,
    - `scores` (B, 3 + top): the log-sum-exp of the new logits, the logit that the row had given to its item, the
      log-sum-exp it had, and the logits of the most likely next items,
    - `places` int64 (B, 1 + top): the rank that the row gave to its item, 1 being the most likely, and the ids of
      those items.
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
    """What comes before the step graph's nodes: the rows, taken apart."""
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
    """What comes after the step graph's nodes: the next rows put together and stored, and what is told of them."""
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
    """Sizes as ONNX's text has them."""
    return "{" + ", ".join(map(str, sizes)) + "}"


def _also(declarations: Sequence[str]) -> str:
    """Further declarations in a list of some."""
    return "".join(f", {declaration}" for declaration in declarations)


def _model(text: str) -> ModelProto:
    graph: GraphProto = parser.parse_graph(text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
