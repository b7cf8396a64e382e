"""State dicts of other programs: networks in plain torch, and what they become."""

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from arraylstm import LSTM2002, CheckpointError, MarkovLSTM, NextItemModel, Vocabulary, load
from arraylstm_export.cli import app

from ..devices import Chosen
from .golden import Case, needs_golden, recorded

V, E, H = 7, 4, 5
FAST = ["--horizon", "50"]
"""How far an export is compared, where that is not what is tested."""


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


class Embedded(nn.Module):
    """Embedding, LSTM layers, output layer, as most tutorials have them."""

    def __init__(self, layers=1, lstm_bias=True, bias=True, tied=False, width=H):
        super().__init__()
        self.item_table = nn.Embedding(V, width if tied else E)
        self.rnn = nn.LSTM(width if tied else E, width, layers, bias=lstm_bias, batch_first=True)
        self.to_items = nn.Linear(width, V, bias=bias)
        if tied:
            self.to_items.weight = self.item_table.weight

    def forward(self, items):
        return self.to_items(self.rnn(self.item_table(items))[0])


class OneHot(nn.Module):
    """One-hot inputs, and parts inside other parts."""

    def __init__(self, layers=2):
        super().__init__()
        self.core = nn.ModuleDict({"recurrent": nn.LSTM(V, H, layers), "head": nn.Sequential(nn.Linear(H, V))})

    def forward(self, items):
        h, _ = self.core["recurrent"](F.one_hot(items, V).double().transpose(0, 1))
        return self.core["head"](h.transpose(0, 1))


class StepByStep(nn.Module):
    """An nn.LSTMCell in a loop."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(H, V)
        self.encoder = nn.Embedding(V, E)
        self.cell = nn.LSTMCell(E, H)

    def forward(self, items):
        state, outputs = None, []
        for x in self.encoder(items).unbind(1):
            state = self.cell(x, state)
            outputs.append(self.decoder(state[0]))
        return torch.stack(outputs, 1)


class IsAnLSTM(nn.LSTM):
    """A network that is itself the LSTM, so that its weights' names have no prefix."""

    def __init__(self):
        super().__init__(E, H, batch_first=True)
        self.embed = nn.Embedding(V, E)
        self.score_reverse = nn.Linear(H, V)

    def forward(self, items):
        return self.score_reverse(super().forward(self.embed(items))[0])


class Wrapped(nn.Module):
    """What nn.DataParallel and the like put around a network."""

    def __init__(self):
        super().__init__()
        self.module = Embedded(layers=3)

    def forward(self, items):
        return self.module(items)


NETWORKS = {
    "one layer": Embedded,
    "three layers": lambda: Embedded(3),
    "no biases in the LSTM": lambda: Embedded(2, lstm_bias=False),
    "no bias at the output": lambda: Embedded(bias=False),
    "no bias anywhere": lambda: Embedded(2, lstm_bias=False, bias=False),
    "all widths equal": lambda: Embedded(width=E),
    "tied": lambda: Embedded(tied=True),
    "tied without bias": lambda: Embedded(tied=True, bias=False),
    "one-hot": OneHot,
    "a cell": StepByStep,
    "itself an LSTM": IsAnLSTM,
    "wrapped": Wrapped,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_around_an_lstm_gives_its_own_logits(kind, saved):
    """Whatever its parts are called, the loaded model's numbers are the network's, whole and item by item."""
    torch.manual_seed(4)
    network = NETWORKS[kind]().double().eval()
    for weight in network.parameters():
        weight.data.mul_(2)
    model = load(saved(network.state_dict()))
    items = torch.randint(0, V, (3, 11))
    expected = network(items)
    torch.testing.assert_close(model(items)[0], expected, rtol=0, atol=1e-12)
    state = None
    for t in range(items.size(1)):
        logits, state = model.step(items[:, t], state)
        torch.testing.assert_close(logits, expected[:, t], rtol=0, atol=1e-12)


def test_a_safetensors_file_of_such_a_network_loads_too(tmp_path):
    """The suffix chooses the reader, as for saved models."""
    network = Embedded(2).double()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "network.safetensors")
    items = torch.randint(0, V, (2, 5))
    model = load(tmp_path / "network.safetensors", cell="lstm")
    torch.testing.assert_close(model(items)[0], network(items), rtol=0, atol=1e-12)


def test_tied_weights_become_two(saved):
    """Training the model's embedding leaves its output layer alone."""
    model = load(saved(Embedded(tied=True).state_dict()))
    assert torch.equal(model.embedding.weight, model.linear.weight)
    assert model.embedding.weight.data_ptr() != model.linear.weight.data_ptr()


def test_a_cell_other_than_lstm_contradicts_the_file(saved):
    """nn.LSTM's weights are those of one cell only."""
    with pytest.raises(CheckpointError, match="holds the cell 'lstm', not 'array'"):
        load(saved(Embedded().state_dict()), cell="array")


def network_with(**modules):
    network = Embedded(2)
    for name, module in modules.items():
        network.add_module(name, module)
    return network.state_dict()


def network_without(*keys, **replaced):
    return {key: tensor for key, tensor in {**network_with(), **replaced}.items() if key not in keys}


REFUSED = {
    "a norm": (
        network_with(norm=nn.LayerNorm(H)),
        "nothing else; there are .*to_items.weight .*norm.weight .5., norm.b",
    ),
    "a batch norm": (network_with(norm=nn.BatchNorm1d(H).double()), "num_batches_tracked"),
    "a second linear": (network_with(between=nn.Linear(H, H)), "two layers, between.weight and to_items.weight"),
    "a linear beside": (network_with(between=nn.Linear(3, 3)), r"between.weight \[3, 3\], between.bias \[3\]"),
    "a second embedding": (network_with(users=nn.Embedding(3, E)), r"nothing else; .*users.weight \[3, 4\]"),
    "a second LSTM": (
        network_with(more=nn.LSTM(E, H)),
        "holds 2 recurrent modules, rnn.weight_ih_l0, more.weight_ih_l0",
    ),
    "a cell beside": (network_with(more=nn.LSTMCell(E, H)), "holds 2 recurrent modules"),
    "two directions": (network_with(rnn=nn.LSTM(E, H, bidirectional=True)), r"the LSTM rnn\.\* is bidirectional"),
    "a projection": (network_with(rnn=nn.LSTM(E, H, proj_size=2)), r"the LSTM rnn\.\* has a projection \(proj_size\)"),
    "a GRU": (network_with(rnn=nn.GRU(E, H)), r"weight_hh_l0 \[15, 5\] is of an nn.GRU; an nn.LSTM is needed"),
    "an RNN": (network_with(rnn=nn.RNN(E, H)), r"weight_hh_l0 \[5, 5\] is of an nn.RNN"),
    "no output layer": (network_without("to_items.weight", "to_items.bias"), r"output layer \(V, 5\), .* needed"),
    "no embedding": (network_without("item_table.weight"), r"embedding \(V, 4\) \(none where V = 4\) are needed"),
    "an embedding with a row more": (network_with(item_table=nn.Embedding(V + 1, E)), r"item_table.weight \[8, 4\]"),
    "an embedding with a bias": (network_with(item_table=nn.Linear(E, V)), r"item_table.bias \[7\]"),
    "a bias alone": (network_without("to_items.weight"), r"nothing else; .*to_items.bias \[7\]"),
    "a layer that is not there": (network_without("rnn.weight_ih_l1"), r"there are .*rnn.weight_hh_l1 \[20, 5\]"),
    "half of a layer": (network_without("rnn.weight_hh_l1"), "the LSTM lacks rnn.weight_hh_l1"),
    "half of the biases": (network_without("rnn.bias_hh_l0"), "the LSTM lacks rnn.bias_hh_l0"),
    "an upper layer of other width": (
        network_without(**{"rnn.weight_ih_l1": torch.zeros(20, 6)}),
        r"rnn.weight_ih_l1 must be \[20, 5\], got \[20, 6\]",
    ),
    "infinity": (network_without(**{"to_items.bias": torch.full((V,), torch.inf)}), "linear.bias holds 7 values"),
    "a scale": (network_without(scale=torch.tensor(3.0)), r"nothing else; .*scale \[\]"),
    "counts of items": (network_without(counts=torch.ones(V, dtype=torch.int64)), r"nothing else; .*counts \[7\]"),
    "a matrix of one dimension": (
        network_without(**{"rnn.weight_hh_l0": torch.zeros(20)}),
        r"rnn.weight_hh_l0 must have 2 dimensions and none of size 0, got \[20\]",
    ),
    "no units": (
        network_without(**{"rnn.weight_hh_l0": torch.zeros(0, 0)}),
        r"rnn.weight_hh_l0 must have 2 dimensions and none of size 0, got \[0, 0\]",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_left_over_missing_or_otherwise_is_refused_by_its_keys(kind, saved):
    """Nothing that the file holds is dropped in silence, and nothing is guessed."""
    weights, message = REFUSED[kind]
    with pytest.raises(CheckpointError, match=rf"network\.pt: .*{message}"):
        load(saved(weights))


def test_an_embedding_that_could_be_the_output_layer_is_refused_with_a_way_out(saved):
    """Both are (V, H) and none has a bias; with a bias of zeros, as the message says, it loads."""
    network = Embedded(tied=True, bias=False).double()
    network.to_items.weight = nn.Parameter(torch.randn(V, H).double())
    with pytest.raises(
        CheckpointError, match=r"either of item_table.weight and to_items.weight .* give the output .*bias"
    ):
        load(saved(network.state_dict()))
    model = load(saved({**network.state_dict(), "to_items.bias": torch.zeros(V).double()}))
    items = torch.randint(0, V, (2, 5))
    torch.testing.assert_close(model(items)[0], network(items), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_language_model_of_the_playground_loads_from_its_weights_alone(layers, saved):
    """Sizes come from shapes; logits and states are those of the model that wrote the file."""
    torch.manual_seed(6)
    vocabulary = Vocabulary(["[bos]", "[eos]", "[pad]", "[unk]", "a", "b"], unknown="[unk]")
    written = LSTM2002(tknzr=vocabulary, d_blk=2, d_emb=3, n_blk=4, n_lyr=layers, init_lower=-1, init_upper=1)
    written.params_init()
    model = load(saved(written.double().state_dict()), vocabulary=vocabulary)
    assert (type(model), model.vocabulary, model.num_items) == (LSTM2002, vocabulary, 6)
    items = torch.randint(0, 6, (2, 9))
    torch.testing.assert_close(model.unroll(items), written.eval().unroll(items), rtol=0, atol=0)


@pytest.mark.parametrize("buffer", ["h_0", "c_0"])
def test_a_language_model_that_starts_from_other_states_than_zero_is_read(buffer, saved):
    """The buffers that it starts from are in its state dict."""
    torch.manual_seed(6)
    written = LSTM2002(tknzr=Vocabulary(["a", "b", "c", "d"]), d_blk=2, n_lyr=2).eval()
    items = torch.randint(0, 4, (2, 5))
    before = written.unroll(items)[0]
    written.state_dict()[f"stack_rnn.2.{buffer}"].fill_(0.5)
    model = load(saved(written.state_dict()))
    torch.testing.assert_close(model.unroll(items), written.unroll(items), rtol=0, atol=0)
    assert not torch.equal(model.unroll(items)[0], before)


@needs_golden
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", recorded("lstm2002"))
def test_language_models_that_the_playground_wrote_give_their_recorded_logits(name, dtype, saved):
    """From the weights' file alone, logits and last states are the recorded ones."""
    case = Case(name)
    model = load(saved(case.tensors("param/", dtype))).to(Chosen.device)
    inputs = case.tensors("input/", dtype)
    state = None
    if "c_0/0" in inputs:
        state = [inputs[f"{kind}_0/{layer}"] for layer in range(case.meta["ctor"]["n_lyr"]) for kind in ("c", "h")]
    logits, last = model.unroll(case.ids("input/token_ids"), state)
    case.check(logits, "output64/logits", dtype)
    for number, tensor in enumerate(last):
        case.check(tensor, f"output64/{'ch'[number % 2]}_last/{number // 2}", dtype)


def test_a_state_dict_is_exported_with_the_labels_of_a_file(saved, tmp_path):
    """The bundle has them, and its own vocabulary.json is such a file."""
    labels = ["a", "b", "c", "ü", "e", "f", "g"]
    (tmp_path / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    path = saved(Embedded().state_dict())
    assert app([str(path), "-o", str(tmp_path / "bundle"), "--vocabulary", str(tmp_path / "labels.txt"), *FAST]) == 0
    assert Vocabulary.read(tmp_path / "bundle" / "vocabulary.json") == Vocabulary(labels)


# -- what training programs put around a state dict ---------------------------------------------------------------


def foreign_weights():
    """A state dict of each kind that load knows."""
    torch.manual_seed(8)
    array = NextItemModel("array", V, H, k=2).state_dict()
    lstm2002 = LSTM2002(tknzr=Vocabulary(list(range(V))), d_blk=2, n_lyr=2)
    lstm2002.params_init()
    return {
        "array": {key.replace("cells.0.", "lstm."): tensor for key, tensor in array.items()},
        "lstm": Embedded(2).state_dict(),
        "lstm2002": lstm2002.state_dict(),
        "markov": MarkovLSTM(V, H, V, num_layers=2).state_dict(),
    }


def training_checkpoint(network, key):
    """What tutorials save between epochs."""
    weight = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    return {key: network, "optimizer_state_dict": optimiser.state_dict(), "epoch": 3, "loss": torch.tensor(0.5)}


@pytest.mark.parametrize("cell", foreign_weights())
@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "model"])
def test_a_training_checkpoint_loads_as_the_state_dict_in_it(cell, key, saved):
    """Whatever it is called, the one dict of tensors is taken, and epoch, loss and optimiser are not."""
    weights = foreign_weights()[cell]
    expected = load(saved(weights), cell).state_dict()
    loaded = load(saved(training_checkpoint(weights, key)), cell).state_dict()
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)


def test_a_training_checkpoint_with_two_state_dicts_is_refused_with_their_names(saved):
    """Which of them was meant would be a guess."""
    weights = foreign_weights()["lstm"]
    with pytest.raises(CheckpointError, match=r"holds 2 state dicts, model, best; name one \(weights=.*--weights\)"):
        load(saved({"model": weights, "best": weights, "epoch": 3}))


def test_a_training_checkpoint_of_another_network_is_refused_by_the_networks_keys(saved):
    """The message lists the keys of the network, not those of the checkpoint."""
    with pytest.raises(CheckpointError, match="nor a state dict that load knows: .* its keys are weight, bias$"):
        load(saved(training_checkpoint(nn.Linear(2, 2).state_dict(), "model")))


@pytest.mark.parametrize("cell", foreign_weights())
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_is_stripped(cell, prefix, saved):
    """nn.DataParallel, torch.compile and both at once leave the weights what they are."""
    weights = foreign_weights()[cell]
    expected = load(saved(weights), cell).state_dict()
    loaded = load(saved({prefix + key: tensor for key, tensor in weights.items()}), cell).state_dict()
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)


@pytest.mark.parametrize("cell", foreign_weights())
def test_a_batch_norms_count_is_left_over(cell, saved):
    """An integer buffer is a key like any other, and the message names it."""
    weights = {**foreign_weights()[cell], "norm.num_batches_tracked": torch.tensor(3)}
    with pytest.raises(CheckpointError, match=r"(left over: |nothing else; .*)norm\.num_batches_tracked"):
        load(saved(weights), cell)
