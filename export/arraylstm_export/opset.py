"""Version of the operator set and of the file: what decides which runtimes read a graph; see docs/runtimes.md."""

import onnx
from onnx import ModelProto, NodeProto, defs, helper, numpy_helper, version_converter

from arraylstm_export.dataflow import replace
from arraylstm_export.errors import ExportError
from arraylstm_export.naming import all_nodes

OLDEST, NEWEST = 15, 25
NEWEST_IR = 13
_WIDENED = {"Where", "Scan", "GreaterOrEqual"}  # opset 16 gave them further types and nothing else
_NEW_AND_IDLE = {"num_outputs", "noop_with_empty_axes"}  # of opset 18: as many as are named; some axes are given


def checked_ir_version(opset: int, ir_version: int | None) -> int:
    """Return a version of the file for an operator set: the smallest there is unless one is given.

    Raises:
        ExportError: graphs cannot be written in that operator set, or not in that version of the file.
    """
    if not OLDEST <= opset <= NEWEST:
        raise ExportError(f"opset {opset}: graphs can be written in opset {OLDEST} to {NEWEST}")
    smallest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    if ir_version is None:
        return smallest
    if not smallest <= ir_version <= NEWEST_IR:
        raise ExportError(
            f"IR version {ir_version}: opset {opset} can be written in IR version {smallest} to {NEWEST_IR}"
        )
    return ir_version


def converted(model: ModelProto, opset: int, ir_version: int | None = None) -> ModelProto:
    """Return a graph in another version of the operator set.

    Args:
        model: a step graph, or the sequence graph that scans one, in opset 18.
        opset: version of the default operator set, 15 to 25.
        ir_version: version of the file, up to 13; the smallest there is for the operator set unless given.

    Raises:
        ExportError: a version outside these bounds, or an operator that cannot be said in that operator set.
    """
    ir_version = checked_ir_version(opset, ir_version)
    current = model.opset_import[0].version
    result = version_converter.convert_version(model, opset) if opset > current else _lowered(model, opset)
    result.ir_version = ir_version
    onnx.checker.check_model(result, full_check=True)
    return result


def _lowered(model: ModelProto, opset: int) -> ModelProto:
    """Say in an older operator set what the graph says; onnx's own converter knows no way from 18 down."""
    result = ModelProto()
    result.CopyFrom(model)
    (default,) = result.opset_import
    graph = result.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in all_nodes(graph):
        if _since(node, opset) != _since(node, default.version) and node.op_type not in _WIDENED:
            _lower(node, opset, {name: constants[name].tolist() for name in node.input[1:] if name in constants})
    used = {name for node in all_nodes(graph) for name in node.input}
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    default.version = opset
    return result


def _lower(node: NodeProto, opset: int, constants: dict[str, list[int]]) -> None:
    """Turn a node of opset 18 into the same of 15 to 17."""
    if node.op_type.startswith("Reduce") and list(node.input[1:]) == list(constants):
        for axes in constants.values():
            node.attribute.append(helper.make_attribute("axes", axes))
        del node.input[1:]
    elif node.op_type != "Split":
        raise ExportError(f"opset {opset}: has no equal of the model's {node.op_type}; write it in opset 18 or newer")
    replace(node.attribute, [attribute for attribute in node.attribute if attribute.name not in _NEW_AND_IDLE])


def _since(node: NodeProto, opset: int) -> int | None:
    """Return the operator set that gave the node's operator the meaning it has in `opset`; None where it has none."""
    if not defs.has(node.op_type, opset, node.domain):
        return None
    return defs.get_schema(node.op_type, opset, node.domain).since_version
