"""Replace all that a step computes from its item alone by a look-up in tables with a row for every item.

An embedding, the product with the input's weights, whatever a cell makes of its input before the state comes into play:
there are only V different items, so it is computed once for each of them.
"""

import math

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from arraylstm_export.dataflow import dims, handed_on, made_from, rebuilt, replace, without
from arraylstm_export.runners import Array
from arraylstm_export.runtime import session

LARGEST_TABLES = 64 * 2**20
_ITEMS_AT_ONCE = 4096


def tabulated(step: ModelProto, num_items: int) -> ModelProto:
    """Return the step graph with its item's part looked up, or as it is where the tables would take more bytes."""
    graph = step.graph
    before = made_from("items", graph.node, {tensor.name for tensor in graph.initializer})
    after = without(graph.node, before)
    names = handed_on(before, after, [output.name for output in graph.output])
    described = {value.name: value for value in (*graph.value_info, *graph.output)}
    values = [described[name] for name in names]
    if num_items * sum(map(_bytes_per_item, values)) > LARGEST_TABLES:
        return step
    item_part = rebuilt(step, before)
    replace(item_part.graph.input, [value for value in graph.input if value.name == "items"])
    replace(item_part.graph.output, values)
    tables = _evaluate(item_part, num_items)
    look_ups = [helper.make_node("Gather", [f"{name}_table", "items"], [name], f"look_up_{name}") for name in names]
    weights = [numpy_helper.from_array(table, f"{name}_table") for name, table in zip(names, tables, strict=True)]
    return rebuilt(step, [*look_ups, *after], weights)


def _bytes_per_item(value: ValueInfoProto) -> int:
    return 4 * math.prod(int(size) for size in dims(value)[1:])


def _evaluate(item_part: ModelProto, num_items: int) -> list[Array]:
    """Return the outputs (V, ...) for every item."""
    loaded = session(item_part.SerializeToString())
    pieces = np.array_split(np.arange(num_items), -(-num_items // _ITEMS_AT_ONCE))
    found = [loaded.run(None, {"items": piece}) for piece in pieces]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]
