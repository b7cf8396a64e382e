"""Which nodes of a graph depend on what, how a graph is edited, and what a finished graph must satisfy."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
    helper,
)

from arraylstm_export.errors import ExportError
from arraylstm_export.interface import Signature, TensorSpec

# -- which nodes depend on what -----------------------------------------------------------------------------------


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of the loops and branches in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def computed_from(input: str, graph: GraphProto) -> list[NodeProto]:
    """Return the nodes that compute a row of their results from that row of one input, and weights, alone."""
    weights, by_row = {tensor.name for tensor in graph.initializer}, values_by_row(graph)
    known = {input}
    found = []
    for node in graph.node:
        needed = set(node.input) - {""}
        if known & needed and needed <= known | weights and set(node.output) - {""} <= by_row:
            known.update(node.output)
            found.append(node)
    return found


def values_by_row(graph: GraphProto) -> set[str]:
    """Return the names of computed values that have one row for every row of the batch, of a known shape."""
    shapes = {value.name: dims(value) for value in (*graph.value_info, *graph.output)}
    return {name for name, shape in shapes.items() if shape[:1] == ["B"] and all(isinstance(n, int) for n in shape[1:])}


def needed_for(values: Iterable[str], nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Return the nodes that are needed to compute some values."""
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


def passed_on(givers: Iterable[NodeProto], takers: Iterable[NodeProto], outputs: Collection[str] = ()) -> list[str]:
    """Return the values that the givers compute and the takers, or the outputs of a graph, need."""
    taken = {name for node in takers for name in node.input} | set(outputs)
    return [name for node in givers for name in node.output if name in taken]


def dims(value: ValueInfoProto) -> list[int | str]:
    """Return a value's dimensions: numbers, and the names of the dynamic ones."""
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def described(names: Iterable[str], graph: GraphProto) -> list[ValueInfoProto]:
    """Return what the graph says about the type and shape of some values."""
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    return [known[name] for name in names]


# -- edits --------------------------------------------------------------------------------------------------------


def copied(model: ModelProto) -> ModelProto:
    """Return a copy of a model."""
    result = ModelProto()
    result.CopyFrom(model)
    return result


def rebuilt(model: ModelProto, nodes: Iterable[NodeProto], weights: Iterable[TensorProto] = ()) -> ModelProto:
    """Return the model with other nodes and additional weights.

    Weights and descriptions of values that no node mentions any more are left out.
    """
    result = copied(model)
    graph = result.graph
    replace(graph.node, nodes)
    graph.initializer.extend(weights)
    mentioned = {name for node in graph.node for name in (*node.input, *node.output)}
    for values in (graph.initializer, graph.value_info):
        replace(values, [value for value in values if value.name in mentioned])
    return result


def replace(values: Any, others: Iterable[Any]) -> None:
    """Replace the messages in a repeated field of a proto."""
    kept = list(others)
    del values[:]
    values.extend(kept)


def strip(graph: GraphProto) -> None:
    """Drop what torch's exporter wrote about the machine and the source files it ran on."""
    for part in [graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


# -- whole graphs -------------------------------------------------------------------------------------------------


def value_of(tensor: TensorSpec) -> ValueInfoProto:
    """Return the tensor as a graph declares its inputs and outputs."""
    elements = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    return helper.make_tensor_value_info(tensor.name, elements[tensor.dtype], tensor.shape)


def checked_model(
    graph: GraphProto, signature: Signature, opsets: Iterable[OperatorSetIdProto], ir_version: int
) -> ModelProto:
    """Return the graph as a model, once ONNX's checker accepts it and it has the promised signature.

    Raises:
        ExportError: its inputs and outputs are not the promised ones.
    """
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=ir_version, producer_name="arraylstm")
    onnx.checker.check_model(model, full_check=True)
    _check_signature(graph, signature)
    return model


def _check_signature(graph: GraphProto, signature: Signature) -> None:
    for promised, actual in (
        *zip(signature.inputs, graph.input, strict=True),
        *zip(signature.outputs, graph.output, strict=True),
    ):
        if (actual.name, tuple(dims(actual))) != (promised.name, promised.shape):
            raise ExportError(
                f"{graph.name} graph: {promised.name} must be {list(promised.shape)}, "
                f"but {actual.name} {dims(actual)} was exported"
            )
