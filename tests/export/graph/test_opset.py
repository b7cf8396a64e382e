"""Graphs in other versions of the operator set: the same numbers, or a refusal in words."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from arraylstm import NextItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.graph.opset import NEWEST, OLDEST, converted
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.interface import Interface

from ..helpers import make_step


@pytest.mark.parametrize("opset", [OLDEST, 16, 17, 18, 21, NEWEST])
def test_step_and_sequence_say_the_same_in_every_operator_set(exported, opset):
    """Valid graphs of the version asked for, with the same results in onnxruntime, for every cell."""
    model, folder, _ = exported
    interface = Interface.of(model)
    step = onnx.load(folder / "step.onnx")
    rng = np.random.default_rng(0)
    items, lengths = rng.integers(0, model.num_items, (3, 5)), np.array([5, 2, 0])
    state = {s.input.name: rng.random((3, *s.shape), np.float32) for s in interface.states}
    for graph, feed in (
        (step, {"items": items[:, 0], **state}),
        (sequence_graph(step, interface), {"items": items, "lengths": lengths, **state}),
    ):
        result = converted(graph, opset)
        assert [(entry.domain, entry.version) for entry in result.opset_import] == [("", opset)]
        assert result.ir_version == helper.find_min_ir_version_for(result.opset_import)
        actual, expected = (
            onnxruntime.InferenceSession(form.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
            for form in (result, graph)
        )
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_specifications_evaluator_reads_the_oldest(array_bundle):
    """onnx.reference, which has every version of each operator apart, gives the same."""
    model, folder, _ = array_bundle
    step = onnx.load(folder / "step.onnx")
    feed = {"items": np.array([1, 4])}
    feed |= {s.input.name: np.full((2, *s.shape), 0.3, np.float32) for s in Interface.of(model).states}
    for one, other in zip(
        *(ReferenceEvaluator(g).run(None, feed) for g in (step, converted(step, OLDEST))), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_file_version_can_be_newer_than_it_must_be(array_bundle):
    """Opset 18 is written in IR version 8 by default, and the given graph is not changed."""
    _, folder, _ = array_bundle
    step = onnx.load(folder / "step.onnx")
    before = step.SerializeToString()
    assert converted(step, 18).ir_version == 8
    assert converted(step, 18, 10).ir_version == 10
    assert step.SerializeToString() == before


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ((14,), "opset 14: graphs can be written in opset 15 to 25"),
        ((26,), "opset 26: graphs can be written in opset 15 to 25"),
        ((21, 9), "IR version 9: opset 21 can be written in IR version 10 to 13"),
        ((18, 14), "IR version 14: opset 18 can be written in IR version 8 to 13"),
    ],
)
def test_versions_out_of_bounds_are_refused(array_bundle, versions, message):
    """The message names the version asked for and the bounds."""
    with pytest.raises(ExportError, match=message):
        converted(onnx.load(array_bundle[1] / "step.onnx"), *versions)


def test_an_operator_without_an_older_equal_is_named():
    """What opset 17 does not have, here Pad with axes, is refused instead of written wrongly."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B"]) for name in "xy")
    pads = onnx.numpy_helper.from_array(np.array([0, 0]), "pads")
    axes = onnx.numpy_helper.from_array(np.array([0]), "axes")
    node = helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"])
    graph = helper.make_graph([node], "padded", [x], [y], [pads, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ExportError, match="opset 17: has no Pad as the model needs it"):
        converted(model, 17)


@pytest.mark.parametrize("opset", [15, 16])
def test_an_operator_that_did_not_exist_yet_is_named(opset):
    """A model with a layer norm, an operator of opset 17, is refused in words below it and written from it on."""

    class Normed(NextItemModel):
        def query(self, h):
            return torch.nn.functional.layer_norm(super().query(h), h.shape[-1:])

    model = Normed("array", 7, 6, k=2).eval()
    step = make_step(model)
    with pytest.raises(ExportError, match=f"opset {opset}: has no LayerNormalization as the model needs it"):
        converted(step, opset)
    assert converted(step, 17).opset_import[0].version == 17
