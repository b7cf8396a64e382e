"""What the training recipe adds to a model is in every graph: rows of length 1, the scale, the repeated item's bias."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arraylstm import NextItemModel, load, save
from arraylstm.ranks import ranks
from arraylstm_export import Options, export
from arraylstm_export.bundle.model import fingerprint
from arraylstm_export.graph.precision import half_step_graph
from arraylstm_export.graph.step import prepared
from arraylstm_export.interface import Interface
from arraylstm_export.runtime import session

from ..helpers import SMALL, make_step


def make(cell="lstm", **sizes):
    torch.manual_seed(5)
    recipe = {"scale": 12.0, "repeat_bias": True, "embedding_dropout": 0.3, "item_dropout": 0.3}
    model = NextItemModel(cell, 9, 6, **({"k": 2, "embedding_size": 5} | recipe | sizes)).eval()
    with torch.no_grad():
        model._rows()[1].normal_()
        if model.repeat is not None:
            model.repeat.fill_(-3.0)
    return model


def test_every_graph_passes_the_checks_of_parity(tmp_path):
    """Step, sequence on ONNX's LSTM operator and TorchScript agree with the model in float64."""
    assert export(make(tied=True), tmp_path / "bundle", Options(coverage=SMALL)).passed


def test_lengths_are_computed_in_float16_too():
    """Nothing is too large or too small for it."""
    model = make(tied=True)
    interface = Interface.of(model)
    graph = half_step_graph(prepared(model), interface)
    values = [np.arange(9), *(np.zeros((9, *state.shape), np.float32) for state in interface.states)]
    given = dict(zip([tensor.name for tensor in interface.step.inputs], values, strict=True))
    logits, *_ = session(graph.SerializeToString()).run(None, given)
    np.testing.assert_allclose(logits, model.step(torch.arange(9))[0].detach(), atol=0.05)


def test_no_step_divides_rows_by_their_length():
    """The matrix of the items is prepared once; only the query's length is computed, and items are looked up."""
    graph = make_step(make(tied=True)).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("ReduceL2"), kinds.count("Div"), kinds.count("Shape")) == (1, 1, 0)
    assert {node.op_type for node in graph.node if "items" in node.input} == {"Gather"}


@pytest.mark.parametrize(
    "sizes", [{"tied": True}, {}, {"embedding_size": None, "embedding_dropout": 0.0, "item_dropout": 0.0}], ids=str
)
def test_scores_are_cosines_times_the_scale(sizes):
    """As a transcription by hand has them, before and after the rows are prepared, scripted or not."""
    model = make(**sizes)
    items = torch.tensor([[3, 0, 8], [3, 3, 1]])
    x = F.one_hot(items, 9).float() if model.embedding is None else F.embedding(items, model.embedding.weight)
    h, _, _ = model.cells.unroll(x / x.norm(dim=-1, keepdim=True), model.initial_state(2))
    query = model.linear(h) if model.bias is not None else h
    rows = model.embedding.weight if model.bias is not None else model.linear.weight
    bias = model.bias if model.bias is not None else model.linear.bias
    cosines = torch.cosine_similarity(query[:, :, None], rows, dim=-1)
    expected = 12 * cosines + bias - 3 * F.one_hot(items, 9)
    torch.testing.assert_close(model(items)[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.jit.script(model)(items)[0], expected, rtol=1e-5, atol=1e-5)
    model.prepare()
    torch.testing.assert_close(model(items)[0], expected, rtol=1e-5, atol=1e-5)


def test_rescaled_scores_are_multiplied_and_added_to():
    """Whatever the scores are made of."""
    items, added = torch.tensor([[3, 0, 8]]), torch.randn(9)
    for sizes in ({"tied": True}, {}, {"scale": None}, {"scale": None, "tied": True}, {"repeat_bias": False}):
        model = make(**sizes)
        expected = 0.5 * model(items)[0] + added
        model.rescale(0.5, added)
        torch.testing.assert_close(model(items)[0], expected)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_is_saved_and_loaded(suffix, tmp_path):
    """The scale among the weights, as calibration may change it."""
    model = make(tied=True)
    model.rescale(0.25, torch.zeros(9))
    save(model, tmp_path / f"model{suffix}")
    again = load(tmp_path / f"model{suffix}")
    items = torch.tensor([[3, 0, 8]])
    assert torch.equal(again(items)[0], model(items)[0])
    assert again.config == model.config


def test_dropout_on_embeddings_changes_no_fingerprint():
    """It changes no answer; the scale and the bias do, and without them the fingerprint is the one of before."""
    assert fingerprint(make(tied=True)) == fingerprint(make(tied=True, embedding_dropout=0.0))
    assert fingerprint(make(tied=True)) != fingerprint(make(tied=True, repeat_bias=False))
    assert fingerprint(make(tied=True)) == fingerprint(make(tied=True, item_dropout=0.0))
    plain = make(scale=None, repeat_bias=False, embedding_dropout=0.0, item_dropout=0.0)
    assert set(plain.config) == set(NextItemModel("lstm", 9, 6).config)


def test_dropout_on_embeddings_zeroes_features_in_training_alone():
    """The others grow, so that the mean stays."""
    model = make(scale=None, embedding_dropout=0.5, item_dropout=0.0).train()
    items = torch.zeros(4000, dtype=torch.int64)
    ratio = model.embed(items) / model.embedding.weight[0]
    assert set(ratio.detach().round(decimals=4).unique().tolist()) == {0.0, 2.0}
    assert ratio.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(model.eval().embed(items[:1])[0], model.embedding.weight[0])


@pytest.mark.parametrize("scale", [None, 12.0])
def test_dropout_of_items_zeroes_whole_embeddings_in_training_alone(scale):
    """The others stay as long as they are: where there is a scale, that is 1. Scripted models do the same."""
    model = make(scale=scale, embedding_dropout=0.0, item_dropout=0.25)
    items = torch.zeros(100, 40, dtype=torch.int64)
    whole = model.embed(items)
    read = model.train().embed(items)
    there = (read == whole).all(-1)
    assert torch.equal(there, (read != 0).any(-1))
    assert there.float().mean().item() == pytest.approx(0.75, abs=0.05)
    torch.jit.script(model)(items)


@pytest.mark.parametrize("width", [24, 32, 48])
@pytest.mark.parametrize("cell", ["lstm", "array", "attention", "stochastic"])
def test_a_new_model_of_cosines_remembers_what_was_read(cell, width):
    """Before it has learned anything, items score the higher the later they were read, and others low."""
    medians = _ranks_of_items_read(cell, embedding_size=width)
    assert medians == sorted(medians, reverse=True)
    assert medians[-1] <= 5
    assert medians[0] < 500


def test_a_memory_passes_through_layers():
    """Those above keep longer."""
    assert max(_ranks_of_items_read("array", embedding_size=32, num_layers=2)) < 100


def _ranks_of_items_read(cell, **sizes):
    """Return the middle rank, of 2000, of the first item of sessions of 4, of the second, and so on."""
    torch.manual_seed(0)
    model = NextItemModel(cell, 2000, 32, k=2, tied=True, scale=16.0, **sizes).eval()
    sessions = torch.randint(2000, (200, 4))
    scores = model(sessions)[0][:, -1]
    return [ranks(scores, items).double().median().item() for items in sessions.T]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"scale": 0.0}, "scale must be a number above 0, got 0.0"),
        ({"scale": float("inf")}, "scale must be a number above 0, got inf"),
        ({"scale": float("nan")}, "scale must be a number above 0, got nan"),
        ({"embedding_dropout": 1.0}, "embedding_dropout must be at least 0 and below 1, got 1.0"),
        ({"embedding_size": None}, "embedding_dropout needs an embedding, got 0.3 without embedding_size"),
        ({"item_dropout": 1.0}, "item_dropout must be at least 0 and below 1, got 1.0"),
        ({"item_dropout": -0.1}, "item_dropout must be at least 0 and below 1, got -0.1"),
        (
            {"embedding_size": None, "embedding_dropout": 0.0},
            "item_dropout needs an embedding, got 0.3 without embedding_size",
        ),
    ],
)
def test_what_makes_no_model_is_refused_by_name(sizes, message):
    """ValueError says what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        make(**sizes)
