"""Torch's LSTM in and out: the same numbers, and refusals by name."""

import warnings

import pytest
import torch
from torch import nn

import arraylstm
from arraylstm import LSTM, LSTMStack, Stack, from_torch, to_torch

from ..devices import draws_nothing
from .golden import Case, needs_golden, recorded

TORCH_CASES = recorded("torch_lstm", "torch_lstmcell")


@pytest.fixture(params=[1, 2, 3], ids=lambda layers: f"{layers} layers")
def module(request):
    """An nn.LSTM in float64 with weights large enough that gates move."""
    torch.manual_seed(7)
    module = nn.LSTM(5, 6, request.param, batch_first=True).double()
    for weight in module.parameters():
        weight.data.mul_(2)
    return module


def draw(module, batch=4, steps=9):
    shape = (module.num_layers, batch, module.hidden_size)
    x = torch.randn(batch, steps, module.input_size, dtype=torch.float64, requires_grad=True)
    return x, (torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64))


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from a state"])
def test_outputs_and_states_are_the_modules(module, given, scripted):
    """Called as the module is called, the layer returns what it returns."""
    layer = from_torch(module)
    layer = torch.jit.script(layer) if scripted else layer
    x, hidden = draw(module)
    arguments = (x, hidden) if given else (x,)
    assert_same(layer(*arguments), module(*arguments))


def test_gradients_are_the_modules(module):
    """The inputs' gradient is the module's, and every weight's with its gates' rows in the other order."""
    layer = from_torch(module)
    x, hidden = draw(module)
    for run in (module, layer):
        outputs, (h, c) = run(x, hidden)
        (outputs.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    for weight in layer.parameters():
        weight.data = weight.grad
    for weight, gradient in zip(module.parameters(), to_torch(layer).parameters(), strict=True):
        assert_same(gradient.data, weight.grad)
    twice = x.grad.clone()
    x.grad = None
    outputs, (h, c) = module(x, hidden)
    (outputs.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    assert_same(twice, 2 * x.grad)


def test_there_and_back_no_bit_changes(module):
    """to_torch is from_torch's inverse in either order."""
    layer = from_torch(module)
    back = to_torch(layer)
    assert (back.batch_first, back.num_layers, back.dropout) == (True, module.num_layers, module.dropout)
    torch.testing.assert_close(back.state_dict(), module.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(from_torch(back).state_dict(), layer.state_dict(), rtol=0, atol=0)
    assert_same(back(draw(module)[0].detach())[0].shape, torch.Size([4, 9, 6]))


def test_the_two_share_no_memory(module):
    """Training one leaves the other as it was."""
    layer = from_torch(module)
    back = to_torch(layer)
    before = {name: weight.clone() for name, weight in layer.state_dict().items()}
    for weight in [*module.parameters(), *back.parameters()]:
        weight.data.zero_()
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_a_cell_becomes_a_layer_and_a_layer_a_cell():
    """nn.LSTMCell's step after step is the layer's sequence; back as a cell, no bit has changed."""
    torch.manual_seed(3)
    cell = nn.LSTMCell(5, 6).double()
    layer = from_torch(cell)
    assert type(layer) is LSTM
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    h, c = torch.randn(2, 4, 6, dtype=torch.float64)
    outputs, (h_last, c_last) = layer(x, (h.unsqueeze(0), c.unsqueeze(0)))
    for t in range(7):
        h, c = cell(x[:, t], (h, c))
        assert_same(outputs[:, t], h)
    assert_same((h_last[0], c_last[0]), (h, c))
    back = to_torch(layer, cell=True)
    torch.testing.assert_close(back.state_dict(), cell.state_dict(), rtol=0, atol=0)
    assert_same(back(x[:, 0]), cell(x[:, 0]))


@pytest.mark.parametrize("make", [lambda: nn.LSTM(5, 6, 2, bias=False), lambda: nn.LSTMCell(5, 6, bias=False)])
def test_a_module_without_biases_gives_zero_biases(make):
    """They are separate, trainable zeros, and the results stay the module's."""
    module = make().double()
    layer = from_torch(module)
    biases = [weight for name, weight in layer.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() and bias.requires_grad for bias in biases)
    assert len({bias.data_ptr() for bias in biases}) == len(biases)
    x = torch.randn(3, 1, 5, dtype=torch.float64)
    expected = module(x.transpose(0, 1))[0][0] if isinstance(module, nn.LSTM) else module(x[:, 0])[0]
    assert_same(layer(x)[0][:, 0], expected)


def test_time_first_modules_give_layers_that_are_batch_first():
    """The numbers are the same with the first two axes exchanged."""
    module = nn.LSTM(5, 6, 2).double()
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    assert_same(from_torch(module)(x)[0], module(x.transpose(0, 1))[0].transpose(0, 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_dropout_and_mode_are_carried_both_ways(dtype, training):
    """And the generator of random numbers is left where it was."""
    module = nn.LSTM(5, 6, 2, dropout=0.25).to(dtype).train(training)
    with draws_nothing():
        layer = from_torch(module)
        back = to_torch(layer)
    assert (layer.training, layer.dropout, {w.dtype for w in layer.parameters()}) == (training, 0.25, {dtype})
    assert (back.training, back.dropout, {w.dtype for w in back.parameters()}) == (training, 0.25, {dtype})


@pytest.mark.parametrize("bias", [True, False])
def test_frozen_weights_stay_frozen_both_ways(bias):
    """Each weight's requires_grad is its counterpart's, under no_grad too; an absent bias follows its weight."""
    module = nn.LSTM(5, 6, 2, bias=bias)
    frozen = {"weight_ih_l0", "bias_ih_l0", "weight_hh_l1"} | ({"bias_ih_l1"} if bias else {"bias_hh_l1"})
    for name, weight in module.named_parameters():
        weight.requires_grad_(name not in frozen)
    with torch.no_grad():
        layer = from_torch(module)
        back = to_torch(layer)
    ours = {f"{n}.{name}": f"{theirs}_l{n}" for n in (0, 1) for name, theirs in arraylstm.convert.TORCH_NAMES.items()}
    assert {ours[name] for name, weight in layer.named_parameters() if not weight.requires_grad} == frozen
    assert {name for name, weight in back.named_parameters() if not weight.requires_grad} == frozen
    assert all(weight.is_leaf for weight in [*layer.parameters(), *back.parameters()])


def test_the_device_is_carried_both_ways():
    """A module on the meta device gives a layer there, and the layer a module there."""
    layer = from_torch(nn.LSTM(5, 6, 2, device="meta"))
    assert {weight.device.type for weight in [*layer.parameters(), *to_torch(layer).parameters()]} == {"meta"}


def test_dropout_acts_between_layers_in_training_only():
    """With nearly all dropped, the upper layer sees nothing in training and everything in eval."""
    module = nn.LSTM(5, 6, 2, batch_first=True, dropout=0.999999)
    layer = from_torch(module)
    x = torch.randn(4, 7, 5)
    upper = from_torch(module).get_submodule("1")
    torch.testing.assert_close(layer(x)[0], upper(torch.zeros(4, 7, 6))[0])
    torch.testing.assert_close(layer.eval()(x)[0], module.eval()(x)[0])


def test_the_dropout_that_a_single_layer_has_no_use_for_is_left_out():
    """torch warns of it; to_torch does not provoke the warning."""
    with warnings.catch_warnings(action="ignore"):
        module = nn.LSTM(5, 6, dropout=0.5, batch_first=True)
    back = to_torch(from_torch(module))
    assert back.dropout == to_torch(Stack([LSTM(5, 6)], dropout=0.5)).dropout == 0
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(back(x), module(x))


def test_rows_of_other_lengths_are_those_rows_alone(module):
    """lengths gives every row the outputs and states that the module gives the row cut to its length."""
    layer = from_torch(module)
    x, hidden = draw(module)
    lengths = torch.tensor([9, 1, 0, 4])
    outputs, (h, c) = layer(x, hidden, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert not outputs[row, length:].any()
        h_row, c_row = (tensor[:, row : row + 1] for tensor in hidden)
        if length:
            expected, (h_row, c_row) = module(x[row : row + 1, :length], (h_row.contiguous(), c_row.contiguous()))
            assert_same(outputs[row, :length], expected[0])
        assert_same((h[:, row], c[:, row]), (h_row[:, 0], c_row[:, 0]))


def test_a_stack_of_lstms_and_an_array_of_one_lane_convert_too():
    """What computes an LSTM counts as one: Stack of LSTM, ArrayLSTM with k=1, and both together."""
    torch.manual_seed(2)
    for layer in (Stack([LSTM(5, 6), arraylstm.ArrayLSTM(6, 6, 1)]), arraylstm.make_stack("lstm", 5, 6, num_layers=2)):
        x = torch.randn(3, 4, 5, dtype=torch.float64)
        assert_same(to_torch(layer.double())(x)[0], layer(x)[0])
    single = arraylstm.ArrayLSTM(5, 6, 1).double()
    assert_same(to_torch(single)(x), single(x))


def test_empty_batches_and_sequences_keep_their_state(module):
    """B = 0 and S = 0 give empty outputs, and states after no step are those given."""
    layer = from_torch(module)
    _, (h, c) = draw(module)
    outputs, following = layer(torch.zeros(4, 0, 5, dtype=torch.float64), (h, c))
    assert outputs.shape == (4, 0, 6)
    assert_same(following, (h, c))
    outputs, following = layer(torch.zeros(0, 3, 5, dtype=torch.float64))
    assert outputs.shape == (0, 3, 6)
    assert [tensor.shape for tensor in following] == [(module.num_layers, 0, 6)] * 2


class Noisy(LSTM):
    """An LSTM that pools otherwise."""

    def update_hidden(self, outputs, states):
        return (outputs * states).sum(0, keepdim=True)


class Halved(nn.LSTM):
    """An nn.LSTM whose results are others."""

    def forward(self, *given):
        outputs, hidden = super().forward(*given)
        return outputs / 2, hidden


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (nn.LSTM(2, 3, bidirectional=True), ValueError, "a bidirectional LSTM .* takes one that reads forwards only"),
        (nn.LSTM(2, 3, proj_size=2), ValueError, r"without projection \(proj_size=0\), got proj_size=2"),
        (nn.LSTM(2, 3, 2, dropout=1.0), ValueError, "dropout must be at least 0 and below 1, got 1.0"),
        (nn.GRU(2, 3), TypeError, "takes an nn.LSTM or an nn.LSTMCell, got torch.nn.modules.rnn.GRU"),
        (nn.GRUCell(2, 3), TypeError, "got torch.nn.modules.rnn.GRUCell"),
        (LSTM(2, 3), TypeError, "got arraylstm.cells.lstm.LSTM"),
        (Halved(2, 3), TypeError, r"got tests\.model\.test_convert\.Halved"),
        (type("LSTM", (nn.LSTM,), {})(2, 3), TypeError, r"got tests\.model\.test_convert\.LSTM"),
    ],
)
def test_what_has_no_counterpart_here_is_refused_by_name(module, error, message):
    """The message says what was given and what is allowed."""
    with pytest.raises(error, match=message):
        from_torch(module)


@pytest.mark.parametrize(
    ("layer", "cell", "error", "message"),
    [
        (arraylstm.ArrayLSTM(2, 3, 4), False, ValueError, "ArrayLSTM with k=1, .* got k=4"),
        (arraylstm.StochasticArrayLSTM(2, 3, 1), False, TypeError, r"got arraylstm.*\.StochasticArrayLSTM"),
        (arraylstm.AttentionArrayLSTM(2, 3, 2), False, TypeError, r"got arraylstm.*\.AttentionArrayLSTM"),
        (Noisy(2, 3), False, TypeError, r"got tests\.model\.test_convert\.Noisy"),
        (nn.LSTM(2, 3), False, TypeError, r"k=1 and stacks of them, got torch\.nn\.modules\.rnn\.LSTM"),
        (arraylstm.make_stack("array", 2, 3, 4, 2), False, ValueError, "got k=4"),
        (Stack([LSTM(2, 3), LSTM(3, 4)]), False, ValueError, r"one hidden size, as nn.LSTM has, got \[3, 4\]"),
        (LSTMStack(2, 3, 2), True, ValueError, "an nn.LSTMCell is one layer, got 2"),
    ],
)
def test_what_torch_has_no_counterpart_for_is_refused_by_name(layer, cell, error, message):
    """A cell of several lanes, or of other mathematics, does not turn into an LSTM unnoticed."""
    with pytest.raises(error, match=message):
        to_torch(layer, cell=cell)


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_wrong_shapes_are_refused_with_both(scripted):
    """x, h, c and lengths name themselves, and so does a number of layers below one."""
    stack = LSTMStack(5, 6, 2)
    run = torch.jit.script(stack) if scripted else stack
    x, good = torch.zeros(4, 3, 5), torch.zeros(2, 4, 6)
    for arguments, message in (
        ((torch.zeros(4, 3, 6),), r"x must be \(batch, steps, 5\), got \[4, 3, 6\]"),
        ((x, (torch.zeros(1, 4, 6), good)), r"h must be \[2, 4, 6\], got \[1, 4, 6\]"),
        ((x, (good, torch.zeros(2, 1, 6))), r"c must be \[2, 4, 6\], got \[2, 1, 6\]"),
        (
            (x, (good, good), torch.tensor([4, 1, 1, 1], device="cpu")),
            "lengths must be from 0 to 3, the number of steps, got 4",
        ),
    ):
        with pytest.raises((ValueError, torch.jit.Error), match=message):
            run(*arguments)
    with pytest.raises(ValueError, match="num_layers must be an integer of at least 1, got 0"):
        LSTMStack(5, 6, 0)


@needs_golden
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", TORCH_CASES)
def test_recorded_modules_convert_to_their_recorded_outputs(name, dtype):
    """Weights torch wrote give the recorded conversion, bit for bit, and the recorded outputs and states."""
    case = Case(name)
    sizes = case.meta["ctor"]
    single = case.meta["family"] == "torch_lstmcell"
    module = nn.LSTMCell(sizes["input_size"], sizes["hidden_size"]) if single else nn.LSTM(**sizes)
    module.to(dtype).load_state_dict(case.tensors("param/", dtype))
    layer = from_torch(module)
    prefix = "converted/layer0/" if sizes["num_layers"] == 1 else "converted/layer"
    recorded = {key.replace("/", "."): tensor for key, tensor in case.tensors(prefix, dtype).items()}
    torch.testing.assert_close(dict(layer.state_dict()), recorded, rtol=0, atol=0)
    inputs = case.tensors("input/", dtype)
    hidden = (inputs["h_0"], inputs["c_0"]) if "h_0" in inputs else None
    for run in (layer, torch.jit.script(layer)):
        outputs, (h, c) = run(inputs["x"], hidden)
        for key, actual in (("outputs", outputs), ("h_n", h), ("c_n", c)):
            case.check(actual, f"output64/{key}", dtype)
