"""Model files: what is read, and what is refused with which words."""

import json
import pickle
import re

import pytest
import safetensors.torch
import torch

import arraylstm
from arraylstm import CELLS, LSTM2002, CheckpointError, NextItemModel, Vocabulary, load, save

from ..devices import Chosen
from ..reference import arrayLSTM

LABELS = Vocabulary(["a", "b", 3, "<unk>"], unknown="<unk>")


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


@pytest.fixture
def model():
    torch.manual_seed(5)
    return make_models()["attention"]


def make_models():
    """A model of each kind that files hold, with labels."""
    sizes = {"num_layers": 2, "embedding_size": 3, "vocabulary": LABELS}
    lstm2002 = LSTM2002(tknzr=LABELS, d_blk=2, d_emb=3, n_blk=3, n_lyr=2, p_hid=0.5, init_upper=0.9)
    lstm2002.params_init()
    return {
        "attention": NextItemModel("attention", 4, 6, k=2, **sizes).eval(),
        "tied": NextItemModel("array", 4, 6, k=2, tied=True, **sizes).eval(),
        "lstm2002": lstm2002.eval(),
    }


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
    """Whatever stands where a weight or a size should, one CheckpointError tells of the file, not of Python's work."""
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
