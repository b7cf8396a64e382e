"""The version of a graph's operators and of its file, which decide what runtimes can read it; see docs/runtimes.md."""

import onnx
from onnx import ModelProto, NodeProto, defs, helper, numpy_helper, version_converter

from arraylstm_export.errors import ExportError
from arraylstm_export.graph.edit import all_nodes, copied, replace

OPSET, IR_VERSION = 18, 8
"""What graphs are made in, before they are converted."""
OLDEST, NEWEST = 15, 25
NEWEST_IR = 13
_WIDENED = {"Where", "Scan", "GreaterOrEqual"}  # opset 16 gave them more types and changed nothing else
_NEW_AND_IDLE = {"num_outputs", "noop_with_empty_axes"}  # attributes of opset 18 that say what is known anyway


def checked_ir_version(opset: int, ir_version: int | None) -> int:
    """Return the version of the file for an operator set: the one that is given, else the smallest possible.

    Raises:
        ExportError: graphs cannot be written in that operator set or that version of the file.
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
        ir_version: version of the file, up to 13; None is the smallest possible for the operator set.

    Raises:
        ExportError: a version is outside these bounds, or the operator set lacks an operator that the graph needs.
    """
    ir_version = checked_ir_version(opset, ir_version)
    current = model.opset_import[0].version
    result = version_converter.convert_version(model, opset) if opset > current else _lowered(model, opset)
    result.ir_version = ir_version
    onnx.checker.check_model(result, full_check=True)
    return result


def _lowered(model: ModelProto, opset: int) -> ModelProto:
    """Return the same graph in an older operator set; onnx's own converter cannot convert from 18 down."""
    result = copied(model)
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
    """Rewrite a node of opset 18 in opset 15 to 17."""
    if node.op_type.startswith("Reduce") and list(node.input[1:]) == list(constants):
        for axes in constants.values():
            node.attribute.append(helper.make_attribute("axes", axes))
        del node.input[1:]
    elif node.op_type != "Split":
        raise ExportError(f"opset {opset}: has no {node.op_type} as the model needs it; write it in opset 18 or newer")
    replace(node.attribute, [attribute for attribute in node.attribute if attribute.name not in _NEW_AND_IDLE])


def _since(node: NodeProto, opset: int) -> int | None:
    """Return the operator set that defined the node's operator as it is in `opset`; None if it is not there."""
    if not defs.has(node.op_type, opset, node.domain):
        return None
    return defs.get_schema(node.op_type, opset, node.domain).since_version
