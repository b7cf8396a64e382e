"""The step in float16."""

import numpy as np
import onnx
import pytest
import torch

from arraylstm import NextItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.eager import Whole
from arraylstm_export.formats.onnx import SequenceGraph, StepGraph
from arraylstm_export.graph.precision import half_step_graph
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.graph.step import prepared
from arraylstm_export.interface import Interface


@pytest.mark.parametrize("cell", ["array", "attention", "markov"])
def test_float16_weights_under_a_float32_interface(cell, tmp_path):
    """Step and sequence are within float16's resolution of float32 over 20 steps; every weight is float16."""
    torch.manual_seed(2)
    model = NextItemModel(cell, 30, 16, k=3, embedding_size=8).eval().requires_grad_(False)
    interface = Interface.of(model, with_diagnostics=bool(model.diagnostic_names))
    step = half_step_graph(prepared(model), interface)
    onnx.save(step, tmp_path / "step.onnx")
    onnx.save(sequence_graph(step, interface), tmp_path / "sequence.onnx")
    assert not [t.name for t in step.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    rng = np.random.default_rng(0)
    items, lengths = rng.integers(0, 30, (4, 20)), np.array([20, 3, 0, 20])
    state = [rng.random((4, *state.shape), np.float32) for state in interface.states]
    (expected, *_), after = Whole(model, interface)(items, lengths, state)
    for form in (StepGraph(tmp_path / "step.onnx", interface), SequenceGraph(tmp_path / "sequence.onnx", interface)):
        (logits, *_), states = form(items, lengths, state)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=5e-3)
        for actual, wanted in zip(states, after, strict=True):
            np.testing.assert_allclose(actual, wanted, atol=5e-3)


def test_the_model_stays_float32_and_its_weights_are_checked(tmp_path):
    """The given model is not changed; a weight beyond float16 is named instead of becoming infinite."""
    model = NextItemModel("array", 4, 3, k=2).eval().requires_grad_(False)
    half_step_graph(prepared(model), Interface.of(model))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    model.linear.bias[1] = -1e5
    with pytest.raises(ExportError, match="linear.bias has a weight of -?100000; float16 goes up to 65504"):
        half_step_graph(prepared(model), Interface.of(model))
