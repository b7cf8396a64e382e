"""Networks in plain torch of other shapes: tied in code, fed by numbers, stacked by hand, with two layers to score."""

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from arraylstm import CheckpointError, NextItemModel, load
from arraylstm.activations import ACTIVATIONS, activate
from arraylstm_export import export
from arraylstm_export.cli import app

from ..export.helpers import QUICK

V, E, H = 7, 4, 5


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


def assert_same(model, network):
    """The model's logits are the network's, whole and item by item."""
    items = torch.randint(0, model.num_items, (3, 11), generator=torch.Generator().manual_seed(1))
    expected = network.double()(items)
    model.double()
    torch.testing.assert_close(model(items)[0], expected, rtol=0, atol=1e-12)
    state = None
    for t in range(items.size(1)):
        logits, state = model.step(items[:, t], state)
        torch.testing.assert_close(logits, expected[:, t], rtol=0, atol=1e-12)


class TiedInCode(nn.Module):
    """The embedding scores the items too, and there is no output layer."""

    def __init__(self, num_items=V, width=V, bias=False):
        super().__init__()
        self.emb = nn.Embedding(num_items, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.out_bias = nn.Parameter(torch.randn(num_items)) if bias else None

    def forward(self, items):
        return F.linear(self.lstm(self.emb(items))[0], self.emb.weight, self.out_bias)


class Fed(nn.Module):
    """An LSTM fed by one-hot vectors, or by the number of an id as DeepLog feeds it, and a linear layer."""

    def __init__(self, num_items=V, width=H, inputs=1, bias=True):
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, 2, batch_first=True)
        self.fc = nn.Linear(width, num_items, bias=bias)

    def forward(self, items):
        inputs = self.lstm.input_size
        x = items[:, :, None] if inputs == 1 else F.one_hot(items, inputs)
        return self.fc(self.lstm(x.to(self.fc.weight.dtype))[0])


class TestTiedInCode:
    """One matrix beside the LSTM."""

    def test_a_square_matrix_is_refused_with_both_ways_out(self, saved):
        """Where V = E = H, an embedding that scores and an output layer over one-hot items look alike."""
        path = saved(TiedInCode().state_dict())
        with pytest.raises(CheckpointError, match=r"2 ways: .*one-hot.*; or .*--tied or .*--no-embedding"):
            load(path)

    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize(("num_items", "width"), [(V, V), (V, H)])
    def test_what_is_said_to_be_tied_is(self, saved, num_items, width, bias):
        """Square or not, with a bias or without."""
        network = TiedInCode(num_items, width, bias)
        assert_same(load(saved(network.state_dict()), tied=True), network)

    def test_what_is_said_to_have_no_embedding_is_fed_one_hot(self, saved):
        """The same shapes, read the other way."""
        network = Fed(V, V, V, bias=False)
        assert_same(load(saved(network.state_dict()), no_embedding=True), network)

    def test_a_layer_with_a_bias_is_no_embedding(self, saved):
        """nn.Embedding has none, so there is one way to read it."""
        network = Fed(V, V, V)
        assert_same(load(saved(network.state_dict())), network)

    def test_a_hint_that_contradicts_the_file_is_refused(self, saved):
        """The message says how the file is read."""
        with pytest.raises(CheckpointError, match=r"read with items fed as one-hot.*not what tied=True, --tied says"):
            load(saved(Fed(V, H, V).state_dict()), tied=True)
        with pytest.raises(CheckpointError, match="not what no_embedding=True, --no-embedding says"):
            load(saved(TiedInCode(V, H).state_dict()), no_embedding=True)

    def test_a_matrix_that_is_not_called_an_embedding_is_asked_about(self, saved):
        """An LSTM over vectors, with an output layer without bias, has the same shapes."""
        weights = {key.replace("emb", "fc"): tensor for key, tensor in TiedInCode(V, H).state_dict().items()}
        with pytest.raises(CheckpointError, match=r"no matrix but fc\.weight beside the LSTM; .*--tied"):
            load(saved(weights))

    def test_the_command_line_takes_the_hint(self, saved, tmp_path, capsys):
        """--tied does what tied=True does."""
        network = TiedInCode()
        path = saved(network.state_dict())
        assert app([str(path), "--tied", "--horizon", "50", "--format", "torchscript"]) == 0
        assert (tmp_path / "network" / "manifest.json").exists()


def test_a_model_of_our_own_needs_no_hints(tmp_path):
    """It describes itself; a hint would be ignored in silence."""
    from arraylstm import save

    save(NextItemModel("array", 3, 4, k=2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"is a model of arraylstm, of which tied says nothing; .*--tied"):
        load(tmp_path / "model.pt", tied=True)


def test_a_shared_tensor_is_in_a_safetensors_file_under_both_names(tmp_path):
    """save_model writes it once, and its other name into the metadata."""
    network = nn.ModuleDict({"table": nn.Embedding(V, H), "rnn": nn.LSTM(H, H), "out": nn.Linear(H, V)})
    network["out"].weight = network["table"].weight
    safetensors.torch.save_model(network, tmp_path / "network.safetensors")
    assert len(safetensors.torch.load_file(tmp_path / "network.safetensors")) == 6
    model = load(tmp_path / "network.safetensors")
    torch.testing.assert_close(model.embedding.weight, model.linear.weight, rtol=0, atol=0)
    torch.testing.assert_close(model.linear.bias, network["out"].bias, rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_items_are_fed_to_one_input_as_the_number_of_their_id(saved, bias):
    """So DeepLog's network is fed."""
    network = Fed(bias=bias)
    assert_same(load(saved(network.state_dict())), network)


# -- stacks made by hand ---------------------------------------------------------------------------------------------


class Stacked(nn.Module):
    """LSTMs and LSTMCells on each other, each under a name of its own."""

    def __init__(self, names, widths, cells=False):
        super().__init__()
        self.emb = nn.Embedding(V, E)
        for name, below, width in zip(names, [E, *widths], widths, strict=False):
            self.add_module(name, nn.LSTMCell(below, width) if cells else nn.LSTM(below, width, batch_first=True))
        self.out = nn.Linear(widths[-1], V)
        self.names, self.cells = names, cells

    def forward(self, items):
        x = self.emb(items)
        for name in self.names:
            layer = self.get_submodule(name)
            if self.cells:
                state, outputs = None, []
                for each in x.unbind(1):
                    state = layer(each, state)
                    outputs.append(state[0])
                x = torch.stack(outputs, 1)
            else:
                x = layer(x)[0]
        return self.out(x)


@pytest.mark.parametrize("cells", [False, True])
@pytest.mark.parametrize(
    ("names", "widths"),
    [
        (["lstm1", "lstm2"], [H, H]),
        (["lstm", "lstm2", "lstm10"], [E, E, E]),
        (["lstm_1", "lstm_0"], [6, 3]),
        (["bottom", "top"], [6, 3]),
        (["low", "high"], [3, 6]),
    ],
)
def test_layers_under_names_of_their_own_are_one_stack(saved, names, widths, cells):
    """Numbers in the names give the order, or widths that allow one order; narrower layers become as wide as others."""
    if names == ["lstm_1", "lstm_0"]:
        names = names[::-1]
    network = Stacked(names, widths, cells)
    shuffled = dict(reversed(network.state_dict().items()))
    model = load(saved(shuffled))
    assert (model.config["num_layers"], model.config["hidden_size"]) == (len(names), max(widths))
    assert_same(model, network)


def test_the_units_that_widen_a_layer_stay_zero(saved):
    """They add nothing to the numbers, and their states stay zero."""
    model = load(saved(Stacked(["a", "b"], [6, 3]).state_dict()))
    _, state = model(torch.randint(0, V, (2, 20)))
    assert (state[2][:, 3:] == 0).all()
    assert (state[3][..., 3:] == 0).all()
    assert export(model, saved({}).parent / "bundle", QUICK).passed


def test_layers_whose_order_is_open_are_refused_with_the_way_out(saved):
    """Equal widths and names without numbers would make it a guess."""
    network = Stacked(["bottom", "top"], [E, E])
    with pytest.raises(CheckpointError, match=r"holds 2 recurrent modules, .*order open; .*such as lstm\.0\.\*"):
        load(saved(network.state_dict()))


# -- an output of two layers -----------------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    """An embedding, an LSTM, and two layers with an activation between them."""

    def __init__(self, activation="relu", bias=True):
        super().__init__()
        self.emb = nn.Embedding(V, E)
        self.rnn = nn.LSTM(E, H, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(H, 6, bias=bias), nn.Linear(6, V, bias=bias)
        self.activation = activation

    def forward(self, items):
        return self.fc2(activate(self.activation, self.fc1(self.rnn(self.emb(items))[0])))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_layers_score_with_what_is_said_to_stand_between_them(saved, activation):
    """Every activation there is, with biases and without."""
    for bias in (True, False):
        network = TwoLayers(activation, bias)
        assert_same(load(saved(network.state_dict()), activation=activation), network)


def test_what_stands_between_two_layers_must_be_said(saved):
    """It has no weights, so the file does not tell; the message lists what there is."""
    path = saved(TwoLayers().state_dict())
    for activation, said in ((None, "between them; name it"), ("mish", "'mish' is not known; name it")):
        with pytest.raises(CheckpointError, match=rf"fc1\.weight and fc2\.weight, .*{said} .*--activation\): none, re"):
            load(path, activation=activation)
    with pytest.raises(CheckpointError, match=r"output of one layer, fc\.weight; leave out activation"):
        load(saved(Fed().state_dict()), activation="relu")


def test_a_model_with_two_layers_is_saved_scripted_and_exported(saved, tmp_path):
    """The head is part of the model like all else."""
    from arraylstm import save

    model = load(saved(TwoLayers("gelu").state_dict()), activation="gelu")
    save(model, tmp_path / "model.pt")
    again = load(tmp_path / "model.pt")
    assert again.config == model.config
    items = torch.randint(0, V, (2, 5))
    torch.testing.assert_close(torch.jit.script(again)(items)[0], model(items)[0])
    assert export(again, tmp_path / "bundle", QUICK).passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation 'relu' stands behind a head; give a head_size"),
        ({"head_size": 0}, "head_size must be an integer of at least 1, got 0"),
        ({"head_size": 3, "activation": "mish"}, "activation must be one of none, relu, .*, got 'mish'"),
    ],
)
def test_a_head_that_cannot_be_is_refused(arguments, message):
    """By the value seen and what is allowed."""
    with pytest.raises(ValueError, match=message):
        NextItemModel("lstm", 3, 4, **arguments)


# -- a state to start from -------------------------------------------------------------------------------------------


class Started(nn.Module):
    """An LSTM over one-hot items whose first state is learned, under two names and in one of the usual shapes."""

    def __init__(self, names=("h0", "c0"), shape=(2, 1, H), layers=2):
        super().__init__()
        self.lstm = nn.LSTM(V, H, layers, batch_first=True)
        self.fc = nn.Linear(H, V)
        self.names = names
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def forward(self, items):
        layers, batch = self.lstm.num_layers, items.size(0)
        h, c = (getattr(self, name).reshape(layers, 1, H).expand(layers, batch, H) for name in self.names)
        x = F.one_hot(items, V).to(self.fc.weight.dtype)
        return self.fc(self.lstm(x, (h.contiguous(), c.contiguous()))[0])


class StartedCells(nn.Module):
    """LSTMCells of two widths on each other, each with a first state of its own in a ParameterList."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(V, H), nn.LSTMCell(H, H - 2)])
        self.hidden_init = nn.ParameterList(nn.Parameter(torch.randn(1, n)) for n in (H, H - 2))
        self.cell_init = nn.ParameterList(nn.Parameter(torch.randn(n)) for n in (H, H - 2))
        self.fc = nn.Linear(H - 2, V)

    def forward(self, items):
        state = [(h.expand(len(items), -1), c.expand(len(items), -1)) for h, c in zip(self.hidden_init, self.cell_init)]
        logits = []
        for item in items.unbind(1):
            x = F.one_hot(item, V).to(self.fc.weight.dtype)
            for layer, cell in enumerate(self.cells):
                state[layer] = cell(x, state[layer])
                x = state[layer][0]
            logits.append(self.fc(x))
        return torch.stack(logits, 1)


@pytest.mark.parametrize(
    "make",
    [
        Started,
        lambda: Started(("init_hidden", "init_cell"), (2, H)),
        lambda: Started(("initial_h", "initial_c"), (1, 1, H), 1),
        lambda: Started(("hx_init", "cx_init"), (H,), 1),
        lambda: Started(("rnn_c_0", "rnn_h_0")[::-1], (1, H), 1),
        StartedCells,
    ],
)
def test_a_start_that_was_learned_is_read(saved, make):
    """The model starts where the network does, whatever the start's shape and name; saved again, it still does."""
    from arraylstm import save

    torch.manual_seed(9)
    network = make()
    path = saved(network.state_dict())
    model = load(path)
    assert model.config["learned_start"]
    save(model, path)
    assert_same(model, network)
    again = load(path).double()
    items = torch.randint(0, V, (3, 4))
    torch.testing.assert_close(again(items)[0], network(items), rtol=0, atol=1e-6)


def test_a_start_of_an_array_network_is_read(saved):
    """array-lstm's states have the axis of lanes first."""
    from arraylstm import ArrayLSTM

    torch.manual_seed(9)
    cell, linear = ArrayLSTM(V, H, 3).double(), nn.Linear(H, V).double()
    h, c = torch.randn(1, 1, H).double(), torch.randn(3, 1, H).double()
    parts = {f"lstm.{key}": tensor for key, tensor in cell.state_dict().items()}
    parts |= {f"linear.{key}": tensor for key, tensor in linear.state_dict().items()}
    model = load(saved({**parts, "h_0": h, "c_0": c}), cell="array")
    items = torch.randint(0, V, (2, 6))
    x = F.one_hot(items, V).double()
    outputs, _ = cell(x, (h.expand(1, 2, H), c.expand(3, 2, H)))
    torch.testing.assert_close(model(items)[0], linear(outputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["h0", "c_0", "hidden_init", "init_state", "rnn_h0"])
def test_half_a_start_is_refused_with_the_ways_out(saved, name):
    """What the other state starts from has no weights; without the start the network can still be loaded."""
    network = Fed()
    weights = {**network.state_dict(), name: torch.randn(2, 1, H)}
    with pytest.raises(CheckpointError, match=rf"starts from a state of its own, {name}, .*--ignore"):
        load(saved(weights))
    assert_same(load(saved(weights), ignore=[name]), network)
    assert_same(load(saved({**weights, name: torch.zeros(2, 1, H)})), network)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ({"h0": (2, 4, H), "c0": (2, 4, H)}, rf"h0 must be \[2, {H}\] or \[2, 1, {H}\] .* got \[2, 4, {H}\]"),
        ({"h0": (1, 1, H), "c0": (1, 1, H)}, r"h0 must be .* got \[1, 1, 5\]"),
        ({"h0": (2, 1, H)}, "nothing tells what c starts from; save that too, as c_0, even if it is 0"),
        ({"h0": (2, H), "c0": (2, H), "init_state": (2, H)}, "names do not tell which is h and which is c"),
        ({"h0": (2, H), "init_h": (2, H), "c0": (2, H)}, "several of them for h"),
        ({"h0.0": (H,), "h0.1": (H,), "h0.2": (H,), "c0": (2, H)}, "3 of them for h; 2 layers"),
    ],
)
def test_a_start_that_cannot_be_every_sessions_is_refused(saved, starts, message):
    """By the shape or name seen and what is allowed."""
    torch.manual_seed(9)
    weights = {**Fed().state_dict(), **{name: torch.randn(shape) for name, shape in starts.items()}}
    with pytest.raises(CheckpointError, match=rf"starts from a state of its own, {next(iter(starts))}.*{message}"):
        load(saved(weights))
