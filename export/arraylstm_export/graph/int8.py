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

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter import MatchResult, RewriteRule, RewriteRuleSet

from arraylstm_export.arrays import Float32
from arraylstm_export.errors import ExportError

_SMALLEST = 32  # in smaller matrices int8 saves less than scaling the rows costs
_WEIGHT_TOP, _TABLE_TOP = 63, 127
_NUMBERS: dict[str, npt.NDArray[Any]] = {
    "smallest": np.array(1e-30, np.float32),  # the scale of a row of zeros
    "last_axis": np.array([-1], np.int64),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "step": np.array(1 / 127, np.float32),
    "middle": np.array(128, np.uint8),
}


def quantize(step: ModelProto) -> ModelProto:
    """Return the step graph with its large constant matrices in int8; its inputs and outputs stay as they are.

    Raises:
        ExportError: no matrix of the graph is large enough.
    """
    model, constants = ir.from_proto(step), _Constants()
    rewrites = _LookUp(constants), _Product(constants, "Gemm"), _Product(constants, "MatMul")
    rules = [RewriteRule(each.pattern, each.rewrite, each.check) for each in rewrites]
    if not RewriteRuleSet(rules).apply_to_model(model):
        raise ExportError(f"int8: no weight of the model has {_SMALLEST} rows and columns; export it in float32")
    RemoveUnusedNodesPass()(model)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    return onnx.shape_inference.infer_shapes(result)  # from which the sequence graph sees what has a row per row


class _Constants:
    """The constants that the new nodes take, each made once."""

    def __init__(self) -> None:
        self.made: dict[str, ir.Value] = {}

    def value(self, op: Any, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """Return a constant, which `op` adds to the graph the first time."""
        if name not in self.made:
            self.made[name] = op.initializer(ir.tensor(array), name=name)
        return self.made[name]


class _Rule(ABC):
    """A rewrite of a node that takes a large constant matrix; in a pattern the two are called `result` and `weight`."""

    pattern: Callable[..., Any]
    rewrite: Callable[..., ir.Value]

    def __init__(self, constants: _Constants) -> None:
        self.constants = constants

    def check(self, context: Any, weight: ir.Value, result: ir.Value, **others: ir.Value) -> MatchResult:
        """Match matrices of float32 that are large enough, in nodes whose attributes can be kept."""
        found, constant = MatchResult(), weight.const_value
        if constant is None or constant.dtype != ir.DataType.FLOAT or len(constant.shape) != 2:
            return found.fail("not a constant matrix of float32", weight)
        if min(constant.shape.numpy()) < _SMALLEST:
            return found.fail(f"fewer than {_SMALLEST} rows or columns", weight)
        if not self.is_plain(_producer(result)):
            return found.fail("an attribute changes what is computed", result)
        return found

    @abstractmethod
    def is_plain(self, node: ir.Node) -> bool:
        """Tell whether the node's attributes leave it what the rule is for."""


class _LookUp(_Rule):
    """Table row i -> integers of row i, times the scale of row i."""

    def pattern(self, op: Any, weight: Any, ids: Any) -> Any:
        """Find look-ups."""
        return op.Gather(weight, ids, _allow_other_attributes=True, _outputs=["result"])

    def is_plain(self, node: ir.Node) -> bool:
        """Tell whether the look-up is of rows."""
        return node.attributes.get_int("axis", 0) == 0

    def rewrite(self, op: Any, weight: ir.Value, ids: ir.Value, result: ir.Value) -> ir.Value:
        """Look up integers and scales, and multiply them."""
        table, y = _matrix(weight), result.name
        rows, row_scales = _scaled(table, 1, _TABLE_TOP)
        integers = self.constants.value(op, f"{weight.name}/int8_rows", rows)
        scales = self.constants.value(op, f"{weight.name}/int8_row_scales", row_scales)
        found = _node(op, "Gather", integers, ids, name=f"{y}/int8")
        found = _node(op, "Cast", found, name=f"{y}/integers", to=ir.DataType.FLOAT)
        scale = _node(op, "Gather", scales, ids, name=f"{y}/scale")
        return _node(op, "Mul", found, scale, name=f"{y}")


class _Product(_Rule):
    """x W + c -> (q R) t s + c, with or without c."""

    def __init__(self, constants: _Constants, operator: str) -> None:
        super().__init__(constants)
        self.operator = operator

    def pattern(self, op: Any, x: Any, weight: Any) -> Any:
        """Find products, by one operator."""
        product = getattr(op, self.operator)
        return product(x, weight, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["result"])

    def is_plain(self, node: ir.Node) -> bool:
        """Tell whether a Gemm is x W + c, W transposed or not; a MatMul always is."""
        alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
        return alpha == beta == 1.0 and node.attributes.get_int("transA", 0) == 0

    def rewrite(self, op: Any, x: ir.Value, weight: ir.Value, result: ir.Value) -> ir.Value:
        """Multiply the integers of the rows with those of the columns, then apply both scales and add c."""
        y, node = result.name, _producer(result)
        integers, column_scales = self._columns(op, weight, transposed=node.attributes.get_int("transB", 0) == 1)
        rows, row_scales = self._rows(op, x, f"{y}")
        sums = _node(op, "MatMulInteger", rows, integers, self._number(op, "middle"), name=f"{y}/int32")
        sums = _node(op, "Cast", sums, name=f"{y}/integers", to=ir.DataType.FLOAT)
        sums = _node(op, "Mul", sums, column_scales, name=f"{y}/columns")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            return _node(op, "Mul", sums, row_scales, name=f"{y}")
        product = _node(op, "Mul", sums, row_scales, name=f"{y}/product")
        return _node(op, "Add", product, bias, name=f"{y}")

    def _rows(self, op: Any, x: ir.Value, y: str) -> tuple[ir.Value, ir.Value]:
        """Return rows (B, K) in integers, uint8 around 128, and their scales (B, 1)."""
        zero, one, last_axis = (self._number(op, name) for name in ("zero", "one", "last_axis"))
        sizes = _node(op, "Abs", x, name=f"{y}/sizes")
        largest = _node(op, "ReduceMax", sizes, last_axis, name=f"{y}/largest")
        # The slice changes nothing except at B = 0, where onnxruntime reduces (0, K) to (0, K) instead of (0, 1).
        column = _node(op, "Slice", largest, zero, one, last_axis, name=f"{y}/column")
        scale = _node(op, "Max", column, self._number(op, "smallest"), name=f"{y}/scale")
        scaled = _node(op, "Div", x, scale, name=f"{y}/scaled")
        step, middle = self._number(op, "step"), self._number(op, "middle")
        return _node(op, "QuantizeLinear", scaled, step, middle, name=f"{y}/uint8"), scale

    def _number(self, op: Any, name: str) -> ir.Value:
        return self.constants.value(op, f"int8/{name}", _NUMBERS[name])

    def _columns(self, op: Any, weight: ir.Value, transposed: bool) -> tuple[ir.Value, ir.Value]:
        """Return a weight (K, N) in integers, and the scales (N) of its columns divided by 127."""
        suffix = "_transposed" if transposed else ""
        matrix = _matrix(weight)
        columns, scales = _scaled(matrix.T if transposed else matrix, 0, _WEIGHT_TOP)
        return (
            self.constants.value(op, f"{weight.name}/int8_columns{suffix}", columns),
            self.constants.value(op, f"{weight.name}/int8_column_scales{suffix}", (scales / 127).reshape(-1)),
        )


def _node(op: Any, kind: str, *inputs: ir.Value, name: str, **attributes: Any) -> ir.Value:
    """Make a node with one output, both called `name`, and return the output."""
    value: ir.Value = getattr(op, kind)(*inputs, _outputs=[name], **attributes)
    _producer(value).name = name
    return value


def _producer(value: ir.Value) -> ir.Node:
    """Return the node that computes a value."""
    node = value.producer()
    assert node is not None
    return node


def _matrix(weight: ir.Value) -> Float32:
    """Return a constant."""
    assert weight.const_value is not None
    return weight.const_value.numpy()


def _scaled(matrix: Float32, axis: int, top: int) -> tuple[npt.NDArray[np.int8], Float32]:
    """Return integers from -top to top, and the scales that turn them back, one per slice along the axis."""
    largest = np.abs(matrix).max(axis, keepdims=True)
    scale = np.where(largest == 0, 1, largest / top).astype(np.float32)
    return np.round(matrix / scale).astype(np.int8), scale
