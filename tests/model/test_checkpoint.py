"""Model files: what is saved, what comes back, and which weights are refused."""

import json
import re

import pytest
import safetensors.torch
import torch

import arraylstm
from arraylstm import CELLS, CheckpointError, NextItemModel, Vocabulary, load, save

from ..devices import Chosen
from ..reference import arrayLSTM
from .model_files import LABELS, make_models


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


@pytest.fixture
def model():
    torch.manual_seed(5)
    return make_models()["attention"]


def edit(model, path, without=(), **weights):
    """Save the model with some weights replaced, added or left out."""
    save(model, path)
    content = torch.load(path, weights_only=True)
    edited = {key: tensor for key, tensor in {**content["state_dict"], **weights}.items() if key not in without}
    torch.save({**content, "state_dict": edited}, path)


@pytest.mark.parametrize("kind", make_models())
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_comes_back_as_it_was_saved(kind, name, dtype, tmp_path):
    """Class, configuration, vocabulary, dtype and weights survive; the model comes back in eval mode."""
    model = make_models()[kind]
    save(model.to(dtype).train(), tmp_path / name)
    loaded = load(tmp_path / name)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.vocabulary == model.vocabulary
    assert not loaded.training
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    items = torch.tensor([[0, 3, 1, 2, 2]])
    torch.testing.assert_close(loaded.unroll(items), model.eval().unroll(items), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_model_is_saved_from_where_it_lies_and_read_to_the_cpu(model, name, tmp_path):
    """What was trained on the chosen device loads where that device is absent, with the same weights."""
    expected = {key: weight.clone() for key, weight in model.state_dict().items()}
    save(model.to(Chosen.device), tmp_path / name)
    loaded = load(tmp_path / name)
    assert loaded.like().device == torch.device("cpu")
    torch.testing.assert_close(dict(loaded.state_dict()), expected, rtol=0, atol=0)


def test_a_file_from_before_classes_were_named_is_a_next_item_model(model, tmp_path):
    """A header without `model` and a configuration without `tied` still load."""
    save(model, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content.pop("model") == "NextItemModel"
    del content["config"]["tied"]
    torch.save(content, tmp_path / "model.pt")
    torch.testing.assert_close(load(tmp_path / "model.pt").state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["GRU4Rec", None, ["NextItemModel"]])
def test_a_class_that_is_not_known_is_refused_with_those_that_are(model, kind, tmp_path):
    """A file from another version says what it holds and what this one reads."""
    save(model, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({**content, "model": kind}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=re.escape(f"class {kind!r}; this version knows NextItemModel, LSTM2002")):
        load(tmp_path / "model.pt")


class Renamed(NextItemModel):
    """A model whose class load could not find."""


def test_a_model_that_could_not_be_loaded_is_not_saved(model, tmp_path):
    """The class and those known are named, and no file is written."""
    with pytest.raises(
        ValueError, match="of the class Renamed, which load does not know; it knows NextItemModel, LSTM"
    ):
        save(Renamed(**model.config), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bare", [False, True], ids=["saved", "state dict"])
def test_a_file_without_labels_takes_those_given(model, bare, tmp_path):
    """They become the model's vocabulary, of which the size is checked."""
    plain = NextItemModel("lstm", 4, 6)
    network = {key.replace("cells.0.", "lstm."): tensor for key, tensor in plain.state_dict().items()}
    torch.save(network, tmp_path / "model.pt") if bare else save(plain, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt", vocabulary=LABELS).vocabulary == LABELS
    with pytest.raises(CheckpointError, match="model.pt: has 4 items, but the vocabulary given for it 3 labels"):
        load(tmp_path / "model.pt", vocabulary=Vocabulary(["a", "b", "c"]))


def test_a_file_with_labels_takes_no_others(model, tmp_path):
    """Even the same ones: which of the two were meant would be a guess."""
    save(model, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="model.pt: has a vocabulary of its own; none can be given"):
        load(tmp_path / "model.pt", vocabulary=LABELS)


def test_the_file_is_readable_without_running_code(model, tmp_path):
    """torch.load(weights_only=True) reads what save wrote."""
    save(model, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content["config"] == model.config
    assert content["vocabulary"] == {"labels": ["a", "b", 3, "<unk>"], "unknown": "<unk>"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("cell", [name for name, cell in CELLS.items() if issubclass(cell, arraylstm.ArrayLSTM)])
def test_a_bare_state_dict_of_the_documented_network_loads(cell, suffix, tmp_path):
    """lstm.* and linear.* become the model's weights; the caller names the cell where the keys do not tell."""
    model = NextItemModel(cell, 5, 6, k=3)
    bare = {key.replace("cells.0.", "lstm."): tensor for key, tensor in model.state_dict().items()}
    path = tmp_path / f"network{suffix}"
    safetensors.torch.save_file(bare, path) if suffix == ".safetensors" else torch.save(bare, path)
    loaded = load(path, cell=None if cell == "lstm" else cell)
    assert loaded.config == {**model.config, "k": 1 if cell == "lstm" else 3}
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_bare_state_dict_that_does_not_tell_its_cell_asks_for_it(tmp_path):
    """The message lists the cells and how to name one."""
    bare = {f"lstm.{key}": tensor for key, tensor in arrayLSTM.ArrayLSTM(5, 6, 3).state_dict().items()}
    torch.save({**bare, "linear.weight": torch.zeros(5, 6), "linear.bias": torch.zeros(5)}, tmp_path / "network.pt")
    with pytest.raises(CheckpointError, match=r"k=3, whose keys do not tell the cell; name it .* lstm, array"):
        load(tmp_path / "network.pt")
    with pytest.raises(
        CheckpointError, match=r"these are not attention's weights; it lacks cells.0.i2a.bias, cells.0.i2a.weight$"
    ):
        load(tmp_path / "network.pt", cell="attention")
    with pytest.raises(CheckpointError, match="unknown cell 'gru'"):
        load(tmp_path / "network.pt", cell="gru")


def test_infinity_that_only_the_models_dtype_makes_is_found(model, tmp_path):
    """A float32 bias beyond float16 does not load as infinity into a float16 model."""
    replaced = {"linear.weight": model.linear.weight.detach().half(), "linear.bias": torch.tensor([1e6, 0, 0, 0])}
    edit(model, tmp_path / "model.pt", **replaced)
    with pytest.raises(CheckpointError, match="linear.bias holds 1 values"):
        load(tmp_path / "model.pt")


def test_a_cell_that_contradicts_the_file_is_refused(model, tmp_path):
    """Naming the file's own cell is allowed, another is not."""
    save(model, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt", "attention").config == model.config
    with pytest.raises(CheckpointError, match="holds the cell 'attention', not 'lstm'"):
        load(tmp_path / "model.pt", "lstm")


def test_a_compiled_model_saves_as_itself(model, tmp_path):
    """torch.compile's wrapper leaves no trace in the file."""
    save(torch.compile(model), tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").config == model.config


def test_saving_replaces_a_file_whole_or_not_at_all(model, tmp_path, monkeypatch):
    """If writing fails half-way, the file that was there is still there, and nothing else."""
    save(model, tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    monkeypatch.setattr(torch, "save", lambda content, path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(model, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_weights_of_other_sizes_are_refused_by_name(model, tmp_path):
    """A key of the wrong shape is named with both shapes."""
    edit(model, tmp_path / "model.pt", **{"linear.bias": torch.zeros(9)})
    with pytest.raises(CheckpointError, match=r"model.pt: linear.bias must be \[4\], got \[9\]$"):
        load(tmp_path / "model.pt")


def test_integers_for_weights_are_refused_by_name(model, tmp_path):
    """A key of the right shape whose numbers no gradient could change is named with their type."""
    edit(model, tmp_path / "model.pt", **{"linear.bias": torch.zeros(4, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match="linear.bias must hold floating-point numbers, got torch.int64"):
        load(tmp_path / "model.pt")


def test_weights_that_are_missing_or_left_over_are_named(model, tmp_path):
    """One sentence says both, the first few of each."""
    edit(model, tmp_path / "model.pt", without=["linear.bias"], **{f"extra_{n}": torch.zeros(1) for n in range(10)})
    message = r"these are not attention's weights; it lacks linear.bias; left over: extra_0, .*, extra_7 and 2 more$"
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "model.pt")


def test_weights_that_share_memory_in_the_file_train_apart(model, tmp_path):
    """Expanded, transposed and aliased tensors load as their values, and one optimiser step changes each by its own."""
    shared = torch.randn(6, 4)
    weights = {"linear.weight": shared.T, "linear.bias": torch.ones(1).expand(4), "embedding.weight": shared.T[:, :3]}
    edit(model, tmp_path / "model.pt", **weights)
    loaded = load(tmp_path / "model.pt")
    for name, tensor in weights.items():
        assert torch.equal(loaded.get_parameter(name), tensor)
        assert loaded.get_parameter(name).is_contiguous()
    reference = NextItemModel(**model.config, vocabulary=LABELS).eval()
    reference.load_state_dict(loaded.state_dict())
    for each in (loaded, reference):
        loss = each.loss(each(torch.tensor([[0, 3, 1]]))[0].flatten(0, 1), torch.tensor([3, 1, 2]))
        optimiser = torch.optim.SGD(each.parameters(), lr=0.1)
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(loaded.state_dict(), reference.state_dict(), rtol=0, atol=0)
    assert not torch.equal(loaded.linear.bias, torch.ones(4))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_by_key(model, name, value, tmp_path):
    """A model that diverged does not reach production."""
    with torch.no_grad():
        model.linear.bias[1] = value
    save(model, tmp_path / name)
    with pytest.raises(CheckpointError, match="linear.bias holds 1 values that are NaN or infinite"):
        load(tmp_path / name)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    """The message says which it was."""
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is not a file"):
        load(tmp_path)


def test_safetensors_with_a_foreign_header_is_refused(model, tmp_path):
    """A header that is not ours describes no model."""
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, {"arraylstm": json.dumps({"arraylstm_format": 1})})
    with pytest.raises(CheckpointError, match="must have a dict as config"):
        load(path)
