"""Operator set and file version: what decides which runtimes read a graph; see docs/runtimes.md."""

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, helper, numpy_helper, version_converter

from arraylstm_export.errors import ExportError

OLDEST, NEWEST = 15, 25
NEWEST_IR = 13


def converted(model: ModelProto, opset: int, ir_version: int | None = None) -> ModelProto:
    """Return the graph in another version of the operator set, stamped with a version of the file format.

    Args:
        model: a step graph, or a sequence graph that scans one.
        opset: version of the default operator set, 15 to 25.
        ir_version: version of the file format; the smallest that the operator set may be written in unless given.

    Raises:
        ExportError: a version outside these bounds, or an operator that the operator set has no equal of.
    """
    if not OLDEST <= opset <= NEWEST:
        raise ExportError(f"opset {opset}: graphs can be written in {OLDEST} to {NEWEST}")
    smallest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    if ir_version is not None and not smallest <= ir_version <= NEWEST_IR:
        raise ExportError(f"IR version {ir_version}: opset {opset} can be written in {smallest} to {NEWEST_IR}")
    result = ModelProto()
    result.CopyFrom(model)
    for graph in _graphs(result.graph):
        _use_sizes(graph, result.graph)
    try:
        result = version_converter.convert_version(result, opset)
    except RuntimeError as error:
        raise ExportError(f"opset {opset}: {str(error).splitlines()[0].rpartition(': ')[2]}") from None
    result.ir_version = ir_version or smallest
    onnx.checker.check_model(result, full_check=True)
    return result
