"""Which nodes of a graph depend on what: how a step is cut into what its item, its state and its result ask for."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto


def made_from(source: str, nodes: Iterable[NodeProto], constants: Collection[str]) -> list[NodeProto]:
    """Return the nodes that compute a row of their results from that row of `source`, and constants, alone."""
    known = {source}
    made = []
    for node in nodes:
        if node.op_type != "Shape" and known & set(node.input) and set(node.input) <= {*known, *constants, ""}:
            known.update(node.output)
            made.append(node)
    return made


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
