"""Replace all that a step computes from its item alone by a look-up in tables with a row for every item.

An embedding, the product with the input's weights, whatever a cell makes of its input before the state comes into play:
there are only V different items, so it is computed once for each of them.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from arraylstm_export.dataflow import dims, handed_on, made_from, rebuilt, replace, without
from arraylstm_export.runners import Array
from arraylstm_export.runtime import session

LARGEST_GROWTH = 64 * 2**20
"""Bytes that tables may take beyond those of the weights that they make superfluous."""
_BYTES_AT_ONCE = 2**26


def tabulated(step: ModelProto, num_items: int) -> ModelProto:
    """Return the step graph with its item's part looked up, or as it is where that would make it grow too much."""
    graph = step.graph
    before = made_from("items", graph)
    after = without(graph.node, before)
    names = handed_on(before, after, [output.name for output in graph.output])
    values = _described(graph, names)
    if num_items * sum(map(_bytes_per_item, values)) - _superfluous_bytes(graph, after) > LARGEST_GROWTH:
        return step
    tables = _evaluate(step, before, values, num_items)
    look_ups = [helper.make_node("Gather", [f"{name}_table", "items"], [name], f"{name}_look_up") for name in names]
    weights = [numpy_helper.from_array(table, f"{name}_table") for name, table in zip(names, tables, strict=True)]
    return rebuilt(step, [*look_ups, *after], weights)


def _described(graph: GraphProto, names: Iterable[str]) -> list[ValueInfoProto]:
    described = {value.name: value for value in (*graph.value_info, *graph.output)}
    return [described[name] for name in names]


def _bytes_per_item(value: ValueInfoProto) -> int:
    return 4 * math.prod(int(size) for size in dims(value)[1:])


def _superfluous_bytes(graph: GraphProto, after: Iterable[NodeProto]) -> int:
    """Return the size of the weights that none of these nodes takes."""
    taken = {name for node in after for name in node.input}
    return sum(4 * math.prod(tensor.dims) for tensor in graph.initializer if tensor.name not in taken)


def _evaluate(
    step: ModelProto, nodes: Sequence[NodeProto], values: Sequence[ValueInfoProto], num_items: int
) -> list[Array]:
    """Return values (V, ...) for every item, in pieces between whose nodes little memory is taken."""
    widest = max(map(_bytes_per_item, _described(step.graph, (name for node in nodes for name in node.output))))
    part = rebuilt(step, nodes)
    replace(part.graph.input, [value for value in step.graph.input if value.name == "items"])
    replace(part.graph.output, values)
    loaded = session(part.SerializeToString())
    pieces = np.array_split(np.arange(num_items), -(-num_items * widest // _BYTES_AT_ONCE))
    found = [loaded.run(None, {"items": piece}) for piece in pieces if len(piece)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]
