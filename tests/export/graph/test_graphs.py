"""The exported graphs, run as users run them and compared with the model."""

import collections
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from arraylstm import LSTM, NextItemModel
from arraylstm_export.graph.lstm import is_plain_lstm
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.interface import Interface

from ..helpers import make_step


def session(folder, name):
    return onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])


def draw(model, batch, steps, seed=0):
    rng = torch.Generator().manual_seed(seed)
    items = torch.randint(0, model.num_items, (batch, steps), generator=rng)
    return items, [torch.rand([batch, *shape], generator=rng) for shape in model.state_shapes]


def feeds(model, state):
    return {f"state_{name}": tensor.numpy() for name, tensor in zip(model.state_names, state, strict=True)}


@pytest.mark.parametrize("batch", [0, 1, 5, 64])
def test_the_step_graph_is_the_models_step_at_any_batch(exported, batch):
    """logits and next states agree for batches other than the exported example's, 0 among them."""
    model, folder, _ = exported
    items, state = draw(model, batch, 1)
    outputs = session(folder, "step.onnx").run(None, {"items": items[:, 0].numpy(), **feeds(model, state)})
    logits, following = model.step(items[:, 0], state)
    for actual, expected in zip(outputs, [logits, *following], strict=True):
        np.testing.assert_allclose(actual, expected.detach(), atol=1e-6)


@pytest.mark.parametrize(("batch", "steps"), [(0, 1), (0, 4), (1, 1), (5, 1), (4, 13), (3, 100)])
def test_the_sequence_graph_freezes_every_row_at_its_length(exported, batch, steps):
    """A row's states are those after its own length, its logits zero from there on; length 0 moves nothing."""
    model, folder, _ = exported
    items, state = draw(model, batch, steps)
    lengths = np.linspace(steps, 0, batch).astype(np.int64)
    feed = {"items": items.numpy(), "lengths": lengths, **feeds(model, state)}
    logits, *following = session(folder, "sequence.onnx").run(None, feed)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        expected, after = model(items[one, :length], [tensor[one] for tensor in state])
        np.testing.assert_allclose(logits[one, :length], expected.detach(), atol=1e-5)
        assert not logits[row, length:].any()
        for actual, tensor in zip(following, after, strict=True):
            np.testing.assert_allclose(actual[one], tensor.detach(), atol=1e-5)


def test_lengths_beyond_the_steps_count_as_all_and_below_zero_as_none(exported):
    """Both kinds of sequence graph bound lengths as the docstring says, int64's own bounds among them."""
    model, folder, _ = exported
    items, state = draw(model, 5, 4)
    run, feed = session(folder, "sequence.onnx").run, {"items": items.numpy(), **feeds(model, state)}
    beyond = np.array([5, -1, np.iinfo(np.int64).max, np.iinfo(np.int64).min, 3])
    expected = run(None, feed | {"lengths": np.array([4, 0, 4, 0, 3])})
    for actual, wanted in zip(run(None, feed | {"lengths": beyond}), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_ids_behind_a_rows_length_are_not_looked_at(exported):
    """Ids that no model has pad the rows without a trace in any output; before the length they are refused."""
    model, folder, _ = exported
    items, state = draw(model, 3, 6)
    run, feed = session(folder, "sequence.onnx").run, {"lengths": np.array([6, 2, 0]), **feeds(model, state)}
    padded = items.numpy().copy()
    padded[1, 2:] = [model.num_items, -999, 999, -1]
    padded[2] = np.iinfo(np.int64).max
    expected = run(None, feed | {"items": items.numpy()})
    for actual, wanted in zip(run(None, feed | {"items": padded}), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="indices element out of"):
        run(None, feed | {"items": padded, "lengths": np.array([6, 6, 0])})


def test_onnxs_own_reference_evaluator_runs_both_graphs(array_bundle):
    """The graphs are plain ONNX: its specification's evaluator gives what onnxruntime gives."""
    model, folder, _ = array_bundle
    items, state = draw(model, 3, 5)
    for name, feed in (
        ("step.onnx", {"items": items[:, 0].numpy()}),
        ("sequence.onnx", {"items": items.numpy(), "lengths": np.array([5, 2, 0])}),
    ):
        feed |= feeds(model, state)
        expected = session(folder, name).run(None, feed)
        for actual, wanted in zip(ReferenceEvaluator(str(folder / name)).run(None, feed), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, atol=1e-6)


def test_the_graphs_use_standard_operators_and_the_step_has_no_loop(exported):
    """Only the default operator set at version 18, IR 8, one file; the sequence graph alone has a loop, one Scan.

    Plain LSTMs have none there either: they run on ONNX's own operator.
    """
    model, folder, _ = exported
    lstm = model.config["cell"] == "lstm"
    for name, loops in (("step.onnx", 0), ("sequence.onnx", 0 if lstm else 1)):
        graph = onnx.load(folder / name)
        onnx.checker.check_model(graph, full_check=True)
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
        assert graph.ir_version == 8
        kinds = collections.Counter(node.op_type for node in graph.graph.node)
        assert kinds["Scan"] + kinds["Loop"] + kinds["If"] == loops
        assert kinds["LSTM"] == (2 if lstm and name == "sequence.onnx" else 0)
        assert not any(tensor.external_data for tensor in graph.graph.initializer)


@pytest.mark.parametrize("embedding_size", [None, 5])
def test_the_loop_of_the_array_cell_is_short(embedding_size):
    """At most 16 nodes a step are in the loop, and none of them scores items."""
    model = NextItemModel("array", 9, 6, k=3, embedding_size=embedding_size).eval()
    interface = Interface.of(model)
    (scan,) = (n for n in sequence_graph(make_step(model), interface).graph.node if n.op_type == "Scan")
    (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    assert len(body.node) <= 16
    assert not [value.name for value in body.output if value.type.tensor_type.shape.dim[-1].dim_value == 9]


def test_a_lone_graph_describes_itself(array_bundle):
    """Metadata carries fingerprint, model and signature as the manifest has them, and nothing about the machine."""
    _, folder, _ = array_bundle
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("step.onnx", "sequence.onnx"):
        properties = session(folder, name).get_modelmeta().custom_metadata_map
        assert properties["arraylstm.fingerprint"] == manifest["fingerprint"]
        for key, expected in (
            ("states", manifest["states"]),
            ("model", manifest["model"]),
            ("inputs", manifest["graphs"][name]["inputs"]),
            ("outputs", manifest["graphs"][name]["outputs"]),
        ):
            assert json.loads(properties[f"arraylstm.{key}"]) == expected
        assert b".py" not in (folder / name).read_bytes()


def test_an_lstm_whose_step_is_overridden_keeps_its_own_step():
    """The LSTM operator stands in for LSTM alone, not for what inherits from it."""

    class Mean(LSTM):
        def update_hidden(self, outputs, states):
            return 0.5 * outputs * states.tanh()

    model = NextItemModel("lstm", 5, 4, num_layers=2)
    assert is_plain_lstm(model)
    model.cells["1"] = Mean(4, 4)
    assert not is_plain_lstm(model)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_items": 1, "hidden_size": 1, "k": 1},
        {"num_items": 3, "hidden_size": 2, "k": 2, "num_layers": 3},
        {"num_items": 5, "hidden_size": 3, "k": 2, "embedding_size": 1},
    ],
    ids=["smallest", "deep", "narrow"],
)
def test_unusual_sizes_export(sizes, tmp_path):
    """One item, one unit, one lane; several layers; one-hot and tiny embeddings."""
    model = NextItemModel("array", **sizes).eval()
    interface = Interface.of(model)
    onnx.save(sequence_graph(make_step(model), interface), tmp_path / "sequence.onnx")
    items, state = draw(model, 2, 4)
    feed = {"items": items.numpy(), "lengths": np.array([4, 4]), **feeds(model, state)}
    logits = session(tmp_path, "sequence.onnx").run(["logits"], feed)[0]
    np.testing.assert_allclose(logits, model(items, state)[0].detach(), atol=1e-6)
