"""Files that hold code, hold something else, are damaged or hostile: how they are refused."""

import pickle

import pytest
import safetensors.torch
import torch

import arraylstm
from arraylstm import CheckpointError, NextItemModel, load, save

from .model_files import make_models


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


@pytest.fixture
def model():
    torch.manual_seed(5)
    return make_models()["attention"]


class Malicious:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("the file's code was run",)


def write_pickled_module(path):
    torch.save(arraylstm.LSTM(2, 2), path)


def write_malicious(path):
    torch.save({"state_dict": Malicious()}, path)


def write_plain_pickle(path):
    path.write_bytes(pickle.dumps(Malicious()))


@pytest.mark.parametrize("write", [write_pickled_module, write_malicious, write_plain_pickle])
def test_files_that_hold_code_are_refused_unrun_with_a_way_out(write, tmp_path):
    """The error names what to do instead."""
    write(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"refused; save the weights alone instead, torch.save\(model.state_dict"):
        load(tmp_path / "model.pt")


def test_a_pickled_modules_class_is_named(tmp_path):
    """The user learns which code the file wanted to run."""
    write_pickled_module(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"needs the code of arraylstm\.cells\.lstm\.LSTM"):
        load(tmp_path / "model.pt")


def test_a_torchscript_file_is_told_apart(model, tmp_path):
    """A scripted program is not weights."""
    torch.jit.script(model).save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program, not weights"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(model, name, kept, tmp_path):
    """Wherever the file was cut, one clear error comes."""
    path = tmp_path / name
    save(model, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(CheckpointError, match=r"not a (readable|torch)"):
        load(path)


@pytest.mark.parametrize("content", [b"hello\n", b"\x89PNG\r\n", b"{}", bytes(1000)])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_foreign_file_is_refused(name, content, tmp_path):
    """Text, images, JSON and zeros are no models."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a model"),
        (
            {"epoch": 3},
            r"neither an arraylstm model nor a state dict that load knows: it lacks lstm.i2h.weight \(MyNetwork\), .*"
            "its keys are epoch$",
        ),
        ({"lstm.i2h.weight": torch.tensor(1.0)}, "lacks"),
        ({"arraylstm_format": 9}, "is of format 9; this version reads 1"),
        ({"arraylstm_format": 1}, "must have a dict as config, got NoneType"),
        ({"arraylstm_format": 1, "config": None, "state_dict": {}}, "must have a dict as config, got NoneType"),
        ({"arraylstm_format": 1, "config": {}, "state_dict": [1]}, "must have a dict as state_dict, got list"),
        (
            {"arraylstm_format": 1, "config": {}, "state_dict": {}, "vocabulary": ["a"]},
            "must have a dict as vocabulary, got list",
        ),
    ],
)
def test_other_contents_are_refused_by_what_they_lack(content, message, tmp_path):
    """The message tells a foreign file from a newer or a broken one."""
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "model.pt")


def hostile(model):
    saved = {
        "arraylstm_format": 1,
        "config": model.config,
        "vocabulary": {"labels": ["a", "b", 3, "<unk>"], "unknown": "<unk>"},
        "state_dict": model.state_dict(),
    }
    network = {"lstm.i2h.weight": torch.zeros(24, 4), "lstm.h2h.weight": torch.zeros(24, 6)}
    network |= {"linear.weight": torch.zeros(4, 6), "linear.bias": torch.zeros(4)}
    sparse = {**model.state_dict(), "linear.bias": torch.zeros(4).to_sparse()}
    return {
        "a count among the weights": {**saved, "state_dict": {**model.state_dict(), "epoch": 3}},
        "a number as a weight": {**saved, "state_dict": {**model.state_dict(), "linear.weight": 3}},
        "a number as a key": {**saved, "state_dict": {**model.state_dict(), 7: torch.zeros(1)}},
        "a sparse weight": {**saved, "state_dict": sparse},
        "a complex weight": {**saved, "state_dict": {**model.state_dict(), "linear.bias": torch.zeros(4) * 1j}},
        "a model beyond memory": {**saved, "config": {**model.config, "hidden_size": 10**7}},
        "a negative embedding": {**saved, "config": {**model.config, "embedding_size": -5}},
        "a tower of layers": {**saved, "config": {**model.config, "num_layers": 10**9}},
        "a tower of peephole layers": {**saved, "model": "LSTM2002", "config": {"num_items": 4, "n_lyr": 10**9}},
        "another class's configuration": {**saved, "model": "LSTM2002"},
        "a configuration that is a list": {**saved, "config": [1]},
        "a network with a count": {**network, "epoch": 3},
        "a network of three dimensions": {**network, "lstm.i2h.weight": torch.zeros(24, 4, 1)},
        "a network without units": {**network, "linear.weight": torch.zeros(4, 0)},
        "an LSTM of scalars": {"weight_ih_l0": torch.tensor(1.0), "weight_hh_l0": torch.tensor(1.0)},
        "an LSTM without units": {"r.weight_ih_l0": torch.zeros(0, 4), "r.weight_hh_l0": torch.zeros(0, 0)},
        "an LSTM of a word": {"r.weight_ih_l0": "weights", "r.weight_hh_l0": torch.zeros(4, 1)},
        "peepholes of one dimension": {"emb.weight": torch.zeros(4, 2), "stack_rnn.0.pc_c2fg": torch.zeros(3)},
    }


@pytest.mark.parametrize("kind", hostile(NextItemModel("attention", 4, 6, k=2, embedding_size=3)))
def test_hostile_contents_are_refused_without_running_out_of_anything(model, kind, tmp_path):
    """Whatever stands in the place of a weight or a size, one CheckpointError names the file, not Python's trouble."""
    torch.save(hostile(model)[kind], tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="model.pt: (?!.*(unpack|modulo|Error|object|copying|Missing key))"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("header", ["5", '"x"', "[1]", "[" * 100_000])
def test_a_safetensors_header_that_is_no_object_is_refused(header, tmp_path):
    """Any JSON may stand in a foreign file's metadata."""
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, {"arraylstm": header})
    with pytest.raises(CheckpointError):
        load(path)
