"""Weights in int8: a row's result is its own, to the bit, and close to what float32 gives."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxruntime import GraphOptimizationLevel as Level

from arraylstm import CELLS, NextItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.graph.int8 import quantize
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.interface import Interface

from ..helpers import make_step

LEVELS = [Level.ORT_DISABLE_ALL, Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_EXTENDED, Level.ORT_ENABLE_ALL]


def make(cell):
    torch.manual_seed(5)
    model = NextItemModel(cell, 50, 32, k=4, num_layers=1, embedding_size=40).eval().requires_grad_(False)
    return model, Interface.of(model)


def run(graph, feed, level=Level.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.graph_optimization_level = 1, level
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def draw(model, interface, batch, seed=0):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, model.num_items, batch)
    states = {state.input.name: rng.normal(size=(batch, *state.shape)) for state in interface.states}
    return {"items": items, **{name: tensor.astype(np.float32) for name, tensor in states.items()}}


@pytest.fixture(scope="module")
def array():
    """The array cell's model, interface, float32 step and int8 step."""
    model, interface = make("array")
    step = make_step(model)
    return model, interface, step, quantize(step)


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_a_rows_result_does_not_depend_on_the_rows_beside_it(array, level):
    """A row gives the same bits alone, in a batch, and next to rows a thousand times as large, however optimised."""
    model, interface, step, quantized = array
    feed = draw(model, interface, 64)
    together = run(quantized, feed, level)
    for row in range(0, 64, 9):
        alone = run(quantized, {name: value[row : row + 1] for name, value in feed.items()}, level)
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[row])
    beside = {name: value.copy() for name, value in feed.items()}
    for name in list(beside)[1:]:
        beside[name][1:] *= 1000
    for one, many in zip(run(quantized, beside, level), together, strict=True):
        np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_allclose(together[0], run(step, feed)[0], atol=0.05)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_near_its_float32_self(cell):
    """Logits after a random state are off by a fiftieth of their spread at most, in the median, as a lane may flip.

    A row alone gives the bits that it gives in the batch, whichever lanes its cell chooses. Inputs, outputs and the
    graph that was handed in are as they were.
    """
    model, interface = make(cell)
    step = make_step(model)
    before = copy.deepcopy(step)
    quantized = quantize(step)
    assert step == before
    assert (quantized.graph.input, quantized.graph.output) == (step.graph.input, step.graph.output)
    feed = draw(model, interface, 64)
    expected = run(step, feed)[0]
    actual = run(quantized, feed)
    for row in (0, 31, 63):
        alone = run(quantized, {name: value[row : row + 1] for name, value in feed.items()})
        for one, many in zip(alone, actual, strict=True):
            np.testing.assert_array_equal(one[0], many[row])
    error = np.abs(actual[0] - expected)
    assert 0 < np.median(error) < 0.02 * expected.std()


def test_only_standard_operators_and_a_quarter_of_the_bytes():
    """Opset 18 and its default domain alone; float matrices are gone, so that a large model's file is a quarter."""
    torch.manual_seed(5)
    model = NextItemModel("array", 500, 128, k=4, embedding_size=64).eval().requires_grad_(False)
    step = make_step(model)
    quantized = quantize(step)
    assert quantized.opset_import == step.opset_import
    assert {node.domain for node in quantized.graph.node} == {""}
    assert not [
        t.name for t in quantized.graph.initializer if len(t.dims) == 2 and t.data_type == 1 and min(t.dims) > 1
    ]
    assert quantized.ByteSize() < 0.28 * step.ByteSize()


def test_the_specifications_evaluator_agrees(array):
    """onnx.reference gives what onnxruntime gives: no kernel overflows on the way."""
    model, interface, _, quantized = array
    saturated = draw(model, interface, 5)
    for name in list(saturated)[1:]:
        saturated[name] = np.sign(saturated[name])  # every integer of a row at an end of its range
    expected = ReferenceEvaluator(quantized).run(None, saturated)
    for actual, wanted in zip(run(quantized, saturated), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_sums_at_the_ends_of_the_range_are_exact():
    """A row of ones times columns of ones, integers at their largest everywhere, gives the sum; one of zeros, zero."""
    weight, zero = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w"), np.zeros((1, 64), np.float32)
    value = onnx.helper.make_tensor_value_info
    x, y = (value(name, onnx.TensorProto.FLOAT, ["B", 64]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    opset = onnx.helper.make_opsetid("", 18)
    quantized = quantize(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10))
    for rows, sums in ((zero, 0.0), (zero + 1, 64.0), (zero - 1, -64.0), (zero + 1e-38, 64e-38)):
        for (result,) in (run(quantized, {"x": rows}), ReferenceEvaluator(quantized).run(None, {"x": rows})):
            np.testing.assert_allclose(result, sums, rtol=1e-6, atol=1e-29)


def test_steps_and_sequence_agree(array):
    """The sequence graph made of the int8 step gives what the step gives item by item, to float32 rounding."""
    model, interface, _, quantized = array
    items = np.random.default_rng(1).integers(0, 50, (3, 7))
    state = draw(model, interface, 3)
    feed = {**state, "items": items, "lengths": np.array([7, 7, 7])}
    logits, *after = run(sequence_graph(quantized, interface), feed)
    for t in range(7):
        scores, *following = run(quantized, {**state, "items": items[:, t]})
        np.testing.assert_allclose(logits[:, t], scores, atol=1e-5)
        state = dict(zip((s.input.name for s in interface.states), following, strict=True))
    for actual, expected in zip(after, state.values(), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_an_empty_batch_gives_nothing(array):
    """B = 0 runs, as it does in float32."""
    model, interface, _, quantized = array
    assert run(quantized, draw(model, interface, 0))[0].shape == (0, 50)


def test_a_model_too_small_for_int8_is_refused():
    """Matrices under 32 rows or columns stay float32, and a model of nothing else is refused in words."""
    model = NextItemModel("array", 8, 6, k=2).eval()
    with pytest.raises(ExportError, match="int8: no weight of the model has 32 rows and columns"):
        quantize(make_step(model))
