"""What training programs save beside the weights is read without running code; what is no weights is named."""

import argparse
import collections
import datetime
import decimal
import functools
import logging
import os
import pathlib
import sys
import types
import uuid

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from arraylstm import CheckpointError, load
from arraylstm_export import export

from ..export.helpers import QUICK, make_model

V, E, H = 7, 4, 5


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


def network(seed=0):
    torch.manual_seed(seed)
    return nn.ModuleDict({"emb": nn.Embedding(V, E), "rnn": nn.LSTM(E, H), "out": nn.Linear(H, V)})


def is_of(model, seed):
    return torch.equal(model.embedding.weight, network(seed)["emb"].weight)


WEIGHTS = network().state_dict()
OTHERS = network(1).state_dict()


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5),
        np.float32(0.5),
        np.int64(3),
        np.bool_(True),
        np.str_("best"),
        np.arange(3.0),
        argparse.Namespace(lr=0.1, widths=[1, 2]),
        types.SimpleNamespace(lr=0.1),
        collections.defaultdict(list, losses=[1.0, 0.5]),
        collections.defaultdict(int, steps=3),
        collections.defaultdict(dict, epochs={"a": 1}),
        collections.deque([1, 2], maxlen=5),
        collections.Counter("aab"),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(3),
        pathlib.PurePosixPath("runs/3"),
        frozenset([1]),
        {1, 2},
        range(3),
        decimal.Decimal("0.1"),
        uuid.UUID(int=3),
        slice(1, 2),
        {"accuracy": {"tp": torch.tensor([1, 2]), "loss": torch.tensor(0.5)}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_beside_the_weights_does_not_matter(saved, value):
    """It is neither made nor run, and the weights are read."""
    assert is_of(load(saved({"state_dict": WEIGHTS, "extra": value, "nested": {"more": [value]}})), 0)


def test_a_state_dict_in_a_defaultdict_is_one(saved):
    """It is a dict."""
    assert is_of(load(saved(collections.defaultdict(dict, model=WEIGHTS))), 0)


def test_hyperparameters_in_a_dict_of_lightnings_are_a_dict(saved, monkeypatch):
    """Older versions write a subclass of dict, which need not be installed to read the file."""
    module = types.ModuleType("pytorch_lightning.utilities.parsing")
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    for name in ("pytorch_lightning", "pytorch_lightning.utilities", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    path = saved({"state_dict": WEIGHTS, "hyper_parameters": module.AttributeDict(lr=0.1)})
    monkeypatch.undo()
    assert is_of(load(path), 0)


class Runs:
    """Runs code when it is unpickled."""

    def __init__(self, function, *arguments):
        self.made_by = function, arguments

    def __reduce__(self):
        return self.made_by


@pytest.mark.parametrize(
    "value",
    [
        Runs(os.system, "exit 3"),
        Runs(eval, "1 / 0"),
        Runs(getattr, "x", "upper"),
        functools.partial(os.system, "exit 3"),
        collections.defaultdict(os.getcwd),
        argparse.Namespace(run=Runs(os.system, "exit 3")),
    ],
    ids=["os.system", "eval", "getattr", "partial", "factory", "inside"],
)
def test_what_would_run_is_refused_wherever_it_is(saved, value):
    """Placeholders stand for data alone; the message says what to save instead."""
    with pytest.raises(CheckpointError, match=r"refused; save the weights alone instead"):
        load(saved({"state_dict": WEIGHTS, "extra": value}))


@pytest.mark.parametrize(
    "content",
    [
        {"checkpoint": {"model": WEIGHTS, "epoch": 3}},
        {"run": {"best": {"state_dict": WEIGHTS}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}},
    ],
)
def test_a_state_dict_may_be_nested(saved, content):
    """However deep, it is the one dict that has a network's keys."""
    assert is_of(load(saved(content)), 0)


@pytest.mark.parametrize("ema", ["ema", "model_ema", "ema_state_dict", "state_dict_ema", "swa_model", "averaged"])
def test_beside_its_averaged_copy_the_network_is_taken_and_that_is_said(saved, caplog, ema):
    """The copy can be asked for by its key."""
    path = saved({ema: OTHERS, "model": WEIGHTS, "epoch": 3})
    with caplog.at_level(logging.WARNING):
        assert is_of(load(path), 0)
    assert f"took the weights under 'model', not those under {ema}" in caplog.text
    assert "--weights" in caplog.text
    assert is_of(load(path, weights=ema), 1)


def test_an_averaged_copy_in_the_same_state_dict_is_left_out_and_that_is_said(saved, caplog):
    """So a module saves itself that holds its copy."""
    both = {f"net.{key}": tensor for key, tensor in WEIGHTS.items()}
    both |= {f"ema_net.module.{key}": tensor for key, tensor in OTHERS.items()}
    assert is_of(load(saved(both)), 0)
    assert "left out the averaged copy of the weights: ema_net.module.emb.weight" in caplog.text
    assert is_of(load(saved(both), ignore=["net.*"]), 1)


def test_a_model_averaged_by_torch_loads(saved, caplog):
    """Its count of models is no weight."""
    averaged = torch.optim.swa_utils.AveragedModel(network())
    assert is_of(load(saved(averaged.state_dict())), 0)
    assert "left out whole numbers, which are no weights: n_averaged" in caplog.text


def test_of_several_state_dicts_one_is_to_be_named(saved):
    """Which of them was meant would be a guess; a name that is not there is told with those that are."""
    path = saved({"generator": WEIGHTS, "inner": {"critic": OTHERS}})
    with pytest.raises(CheckpointError, match=r"holds 2 state dicts, generator, inner\.critic; name one .*--weights"):
        load(path)
    assert is_of(load(path, weights="inner.critic"), 1)
    with pytest.raises(
        CheckpointError, match=r"no state dict under 'critic' .*; those in it: generator, inner\.critic"
    ):
        load(path, weights="critic")


@pytest.mark.parametrize("extra", ["criterion.weight", "metric.mean"])
def test_numbers_that_take_no_part_can_be_left_out(saved, extra):
    """They are refused with that way out, and a pattern that matches nothing is refused too."""
    path = saved({**WEIGHTS, extra: torch.ones(V) if "weight" in extra else torch.tensor(0.5)})
    with pytest.raises(CheckpointError, match=rf"{extra} .*can be left out \(ignore=\.\.\., --ignore\)"):
        load(path)
    assert is_of(load(path, ignore=["*criterion*" if "criterion" in extra else extra]), 0)
    with pytest.raises(CheckpointError, match=r"has no key 'nothing\.\*' to ignore; its keys are emb\.weight"):
        load(path, ignore=["nothing.*"])


# -- files that are no weights ---------------------------------------------------------------------------------------


def test_a_file_of_another_kind_is_called_what_it_is(tmp_path):
    """Whatever its name is."""
    exported = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(exported, tmp_path / "program.pt2")
    (tmp_path / "renamed.pt").write_bytes((tmp_path / "program.pt2").read_bytes())
    np.savez(tmp_path / "arrays.npz", a=np.zeros(1))
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.pt")
    (tmp_path / "keras.pt").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "packed.pt").write_bytes(b"\x1f\x8b" + bytes(100))
    for name, kind in {
        "program.pt2": r"a program of torch\.export \(\.pt2\)",
        "renamed.pt": r"a program of torch\.export \(\.pt2\)",
        "arrays.pt": "an archive of NumPy arrays",
        "keras.pt": "an HDF5 file, as Keras writes",
        "packed.pt": "compressed with gzip; unpack it first",
    }.items():
        with pytest.raises(CheckpointError, match=rf"{name}: is {kind}, not a file of weights .*; save the weights"):
            load(tmp_path / name)


def test_a_bundle_and_its_graph_are_called_what_they_are(tmp_path):
    """Who exports again what was exported is told so."""
    assert export(make_model("array"), tmp_path / "bundle", QUICK).passed
    with pytest.raises(CheckpointError, match="bundle: is a bundle, exported already"):
        load(tmp_path / "bundle")
    (tmp_path / "graph.pt").write_bytes((tmp_path / "bundle" / "step.onnx").read_bytes())
    for path in (tmp_path / "bundle" / "step.onnx", tmp_path / "graph.pt"):
        with pytest.raises(CheckpointError, match="is an ONNX graph, not a file of weights"):
            load(path)


def test_safetensors_and_torch_files_under_each_others_names_are_told(tmp_path):
    """Both ways, with the name to give."""
    safetensors.torch.save_file(WEIGHTS, tmp_path / "model.pt")
    torch.save(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is a safetensors file; give it a name that ends in \.safetensors"):
        load(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"is a torch file, not safetensors; give it a name that ends in \.pt"):
        load(tmp_path / "model.safetensors")
