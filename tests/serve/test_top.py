"""The search for the likeliest items of a row on the GPU, which goes through groups of items."""

import numpy as np
import pytest
from onnx import helper, parser

from arraylstm_serve.engine.gpu.top import GROUP, UNLIKELY, likeliest
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.step_graph import CPU

K = 16


def found(values):
    """Return what the part finds in rows of values, and its largest sort."""
    width = values.shape[1]
    k = min(K, width)
    part = likeliest("x", width, k)
    head = f"find (float[B, {width}] x) => (float[B, {k}] tops, int64[B, {k}] top_ids)"
    graph = parser.parse_graph(f"{head} <{part.constants}> {{ {part.nodes} }}")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=[CPU]).run(None, {"x": values})


@pytest.mark.parametrize("width", [1, 15, 16, 255, 256, 257, 1000, 4096, 4097, 18009, 65536, 65537])
def test_the_best_are_found_in_order_ties_by_id(width):
    """It finds what a stable sort of the whole row finds, whatever the width, even where many values tie."""
    values = np.random.default_rng(width).normal(size=(5, width)).astype(np.float32).round(1)
    tops, ids = found(values)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(tops, np.take_along_axis(values, expected, 1))


@pytest.mark.parametrize("width", [300, 5000])
def test_what_fills_a_group_up_is_never_taken_for_an_item(width):
    """If fewer items have a probability than are wanted, the rest is at most UNLIKELY, so that a reader can tell."""
    values = np.full((1, width), -np.inf, np.float32)
    values[0, [7, width - 1]] = -1, -2
    tops, ids = found(values)
    assert ids[0, :2].tolist() == [7, width - 1]
    assert (tops[0, 2:] <= np.float32(UNLIKELY)).all()


@pytest.mark.parametrize("width", [257, 1000, 4097, 18009, 70000, 1_000_003])
def test_no_block_of_threads_sorts_more_than_it_can(width):
    """Every TopK is given at most 256 numbers a row."""
    part = likeliest("x", width, K)
    graph = parser.parse_graph(f"g (float[B, {width}] x) => (float[B, {K}] tops) <{part.constants}> {{ {part.nodes} }}")
    shapes = {value.name: list(value.int64_data) for value in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    sorts = [node for node in graph.node if node.op_type == "TopK"]
    assert len(sorts) > 1
    assert all(shapes[makers[node.input[0]].input[1]][-1] <= GROUP for node in sorts)
