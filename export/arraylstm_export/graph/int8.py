"""Weights in 8 bits: a step graph whose large products are computed in integers, with a scale for every row.

A product x W + c of rows x with a constant W becomes

    s = max |x| of the row    q = round(127 x / s)    x W + c = (q R) t s + c

with W = R t, R int8 and t a scale per column. The scale s of a row depends on that row only, so a row's result does not
depend on the other rows of the batch. (onnxruntime's own dynamic quantisation takes one scale from the whole batch,
which leaks one session's data into another's answers.) A look-up in a constant table becomes a look-up in int8 with a
scale per table row.

The nodes are chosen for how runtimes execute them. q is uint8 around 128 because onnxruntime has no fast product of
int8 with int8 on x86. R has 7 bits because x86 without VNNI adds pairs of uint8 x int8 products in 16 bits, which 8-bit
weights overflow silently. The two scales are multiplied in one after the other because onnxruntime would fuse their
product and the addition of c into an operator that is wrong for a scale per row (1.31.1).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from arraylstm_export.arrays import Float32
from arraylstm_export.errors import ExportError
from arraylstm_export.graph.edit import rebuilt

_SMALLEST = 32  # in smaller matrices int8 saves less than scaling the rows costs
_WEIGHT_TOP, _TABLE_TOP = 63, 127
_CONSTANTS: dict[str, npt.NDArray[Any]] = {
    "int8/smallest": np.array(1e-30, np.float32),  # the scale of a row of zeros
    "int8/last_axis": np.array([-1], np.int64),
    "int8/zero": np.array([0], np.int64),
    "int8/one": np.array([1], np.int64),
    "int8/step": np.array(1 / 127, np.float32),
    "int8/middle": np.array(128, np.uint8),
}


def quantize(step: ModelProto) -> ModelProto:
    """Return the step graph with its large constant matrices in int8; its inputs and outputs stay as they are.

    Raises:
        ExportError: no matrix of the graph is large enough.
    """
    rewriter = _Rewriter(step.graph)
    nodes = [new for node in step.graph.node for new in rewriter.rewrite(node)]
    if not rewriter.made:
        raise ExportError(f"int8: no weight of the model has {_SMALLEST} rows and columns; export it in float32")
    made = {**rewriter.made, **_CONSTANTS}
    model = rebuilt(step, nodes, (numpy_helper.from_array(value, name) for name, value in made.items()))
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model)  # from which the sequence graph sees what has a row per row


class _Rewriter:
    """Rewrites the nodes of one graph and collects the constants that the new nodes need."""

    def __init__(self, graph: GraphProto) -> None:
        self.matrices = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and min(tensor.dims) >= _SMALLEST
        }
        self.made: dict[str, npt.NDArray[Any]] = {}

    def rewrite(self, node: NodeProto) -> Iterator[NodeProto]:
        """Yield the nodes that replace a node."""
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Gather" and node.input[0] in self.matrices and not attributes.get("axis"):
            yield from self._look_up(node)
        elif node.op_type in ("Gemm", "MatMul") and node.input[1] in self.matrices and _is_plain(attributes):
            yield from self._product(node, transposed=bool(attributes.get("transB")))
        else:
            yield node

    def _look_up(self, node: NodeProto) -> Iterator[NodeProto]:
        """Table row i = integers of row i, times the scale of row i."""
        (table, ids), result = node.input, node.output[0]
        integers, scales = f"{table}/int8_rows", f"{table}/int8_row_scales"
        if integers not in self.made:
            self.made[integers], self.made[scales] = _scaled(self.matrices[table], 1, _TABLE_TOP)
        yield helper.make_node("Gather", [integers, ids], [f"{result}/int8"])
        yield helper.make_node("Cast", [f"{result}/int8"], [f"{result}/integers"], to=TensorProto.FLOAT)
        yield helper.make_node("Gather", [scales, ids], [f"{result}/scale"])
        yield helper.make_node("Mul", [f"{result}/integers", f"{result}/scale"], [result])

    def _product(self, node: NodeProto, transposed: bool) -> Iterator[NodeProto]:
        (x, weight, *bias), y = node.input, node.output[0]
        integers, scales = self._columns(weight, transposed)
        yield helper.make_node("Abs", [x], [f"{y}/sizes"])
        yield helper.make_node("ReduceMax", [f"{y}/sizes", "int8/last_axis"], [f"{y}/largest"])
        first = ["int8/zero", "int8/one", "int8/last_axis"]  # for B = 0, where onnxruntime reduces (0, K) to (0, K)
        yield helper.make_node("Slice", [f"{y}/largest", *first], [f"{y}/column"])
        yield helper.make_node("Max", [f"{y}/column", "int8/smallest"], [f"{y}/scale"])
        yield helper.make_node("Div", [x, f"{y}/scale"], [f"{y}/scaled"])
        yield helper.make_node("QuantizeLinear", [f"{y}/scaled", "int8/step", "int8/middle"], [f"{y}/uint8"])
        yield helper.make_node("MatMulInteger", [f"{y}/uint8", integers, "int8/middle"], [f"{y}/int32"])
        yield helper.make_node("Cast", [f"{y}/int32"], [f"{y}/integers"], to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [f"{y}/integers", scales], [f"{y}/columns"])
        product = f"{y}/product" if bias else y
        yield helper.make_node("Mul", [f"{y}/columns", f"{y}/scale"], [product])
        if bias:
            yield helper.make_node("Add", [product, bias[0]], [y])

    def _columns(self, weight: str, transposed: bool) -> tuple[str, str]:
        """Return the names of a weight (K, N) in integers and of its columns' scales (N), divided by 127."""
        suffix = "_transposed" if transposed else ""
        integers, scales = f"{weight}/int8_columns{suffix}", f"{weight}/int8_column_scales{suffix}"
        if integers not in self.made:
            matrix = self.matrices[weight]
            quantized, scale = _scaled(matrix.T if transposed else matrix, 0, _WEIGHT_TOP)
            self.made[integers], self.made[scales] = quantized, (scale / 127).astype(np.float32).reshape(-1)
        return integers, scales


def _is_plain(attributes: dict[str, object]) -> bool:
    """Tell whether a Gemm is x W + c, W transposed or not; a MatMul always is."""
    return attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")


def _scaled(matrix: Float32, axis: int, top: int) -> tuple[npt.NDArray[np.int8], Float32]:
    """Return integers from -top to top, and the scales that turn them back, one per slice along the axis."""
    largest = np.abs(matrix).max(axis, keepdims=True)
    scale = np.where(largest == 0, 1, largest / top).astype(np.float32)
    return np.round(matrix / scale).astype(np.int8), scale
