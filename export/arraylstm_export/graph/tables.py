"""Replace everything that a step computes from its item alone by look-ups in tables with a row for every item.

That is the embedding, its product with the input weights, and whatever else a cell computes before the state is needed.
There are only V different items, so it is computed once for each of them, when the model is exported.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from arraylstm_export.arrays import Array
from arraylstm_export.graph.edit import computed_from, described, dims, passed_on, rebuilt, replace, without
from arraylstm_export.runtime import session

LARGEST_GROWTH = 64 * 2**20
"""Bytes by which the tables may be larger than the weights that they replace."""
_BYTES_AT_ONCE = 2**26


def tabulated(step: ModelProto, num_items: int) -> ModelProto:
    """Return the step graph with the item's part looked up, or unchanged where the tables would make it too large."""
    graph = step.graph
    before = computed_from("items", graph)
    after = without(graph.node, before)
    names = passed_on(before, after, [output.name for output in graph.output])
    values = described(names, graph)
    if num_items * sum(map(_bytes_per_item, values)) - _replaced_bytes(graph, after) > LARGEST_GROWTH:
        return step
    tables = _evaluate(step, before, values, num_items)
    look_ups = [helper.make_node("Gather", [f"{name}_table", "items"], [name], f"{name}_look_up") for name in names]
    weights = [numpy_helper.from_array(table, f"{name}_table") for name, table in zip(names, tables, strict=True)]
    return rebuilt(step, [*look_ups, *after], weights)


def _bytes_per_item(value: ValueInfoProto) -> int:
    return 4 * math.prod(int(size) for size in dims(value)[1:])


def _replaced_bytes(graph: GraphProto, after: Iterable[NodeProto]) -> int:
    """Return the size of the weights that the remaining nodes do not use."""
    taken = {name for node in after for name in node.input}
    return sum(4 * math.prod(tensor.dims) for tensor in graph.initializer if tensor.name not in taken)


def _evaluate(
    step: ModelProto, nodes: Sequence[NodeProto], values: Sequence[ValueInfoProto], num_items: int
) -> list[Array]:
    """Return the values (V, ...) for all items, computed for a part of the items at a time to save memory."""
    widest = max(map(_bytes_per_item, described((name for node in nodes for name in node.output), step.graph)))
    part = rebuilt(step, nodes)
    replace(part.graph.input, [value for value in step.graph.input if value.name == "items"])
    replace(part.graph.output, values)
    loaded = session(part.SerializeToString())
    pieces = np.array_split(np.arange(num_items), -(-num_items * widest // _BYTES_AT_ONCE))
    found = [loaded.run(None, {"items": piece}) for piece in pieces if len(piece)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]
