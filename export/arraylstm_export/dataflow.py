"""Which nodes of a graph depend on what: how a step is cut into what its item, its state and its result ask for."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto


def made_from(source: str, graph: GraphProto) -> list[NodeProto]:
    """Return the nodes that compute a row of their results from that row of an input, and weights, alone."""
    weights, by_row = {tensor.name for tensor in graph.initializer}, rows_of(graph)
    known = {source}
    made = []
    for node in graph.node:
        fed = set(node.input) - {""}
        if known & fed and fed <= known | weights and set(node.output) - {""} <= by_row:
            known.update(node.output)
            made.append(node)
    return made


def rows_of(graph: GraphProto) -> set[str]:
    """Return the names of computed values that have a row for every row of the batch, and of a known size."""
    shapes = {value.name: dims(value) for value in (*graph.value_info, *graph.output)}
    return {name for name, shape in shapes.items() if shape[:1] == ["B"] and all(isinstance(n, int) for n in shape[1:])}


def needed_for(values: Iterable[str], nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Return the nodes that some of the values cannot do without."""
    wanted = set(values)
    needed = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            needed.append(node)
    return needed[::-1]


def without(nodes: Iterable[NodeProto], others: Iterable[NodeProto]) -> list[NodeProto]:
    """Return the nodes that are not among the others."""
    known = {node.output[0] for node in others}
    return [node for node in nodes if node.output[0] not in known]


def handed_on(givers: Iterable[NodeProto], takers: Iterable[NodeProto], outputs: Collection[str] = ()) -> list[str]:
    """Return what the givers compute that the takers, or a graph as outputs, receive."""
    taken = {name for node in takers for name in node.input} | set(outputs)
    return [name for node in givers for name in node.output if name in taken]


def dims(value: ValueInfoProto) -> list[int | str]:
    """Return a value's dimensions: numbers, and the names of those that are not fixed."""
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def rebuilt(model: ModelProto, nodes: Iterable[NodeProto], weights: Iterable[TensorProto] = ()) -> ModelProto:
    """Return the model with these nodes, and these weights too, in the place of its own nodes.

    Weights and descriptions of values that no node mentions any more are left out.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    replace(graph.node, nodes)
    graph.initializer.extend(weights)
    mentioned = {name for node in graph.node for name in (*node.input, *node.output)}
    for values in (graph.initializer, graph.value_info):
        replace(values, [value for value in values if value.name in mentioned])
    return result


def replace(values: Any, others: Iterable[Any]) -> None:
    """Put other messages in the place of those that a repeated field of a proto holds."""
    kept = list(others)
    del values[:]
    values.extend(kept)
