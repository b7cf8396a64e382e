"""The Markov recurrent network against a NumPy transcription of its equations; test_markov_golden has the vectors."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from arraylstm import MarkovCell, MarkovLSTM, NextItemModel

from ..devices import Chosen
from .markov_network import flat, inject

# -- the equations once more, in NumPy ------------------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def transcription(weights, x, lengths, noise, tau):
    """One layer in float64: h, z and q of every step, and the last c; noise None is eval()."""
    w = {name: weight.double().numpy(force=True) for name, weight in weights.items()}
    h = np.zeros((x.shape[0], w["W_hz"].shape[0]))
    c, k, series = h.copy(), w["W_hz"].shape[1], []
    for t in range(x.shape[1]):
        logits = x[:, t] @ w["W_xz"] + h @ w["W_hz"] + w.get("b_xz", 0)
        q = softmax(logits)
        z = np.eye(k)[q.argmax(-1)] if noise is None else softmax((logits + noise[t]) / tau)
        a = x[:, t] @ w["W_x_4gates"] + h @ w["W_h_4gates"] + w.get("b_4gates", 0)
        new_h, new_c = np.zeros_like(h), np.zeros_like(c)
        for lane in range(k):
            i, g, f, o = (a[:, (gate * k + lane) * h.shape[1] :][:, : h.shape[1]] for gate in range(4))
            lane_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            new_c += z[:, [lane]] * lane_c
            new_h += z[:, [lane]] * sigmoid(o) * np.tanh(lane_c)
        going_on = (t < lengths)[:, None]
        h, c = np.where(going_on, new_h, h), np.where(going_on, new_c, c)
        series.append((h, z, q))
    return [np.stack(values, 1) for values in zip(*series, strict=True)] + [c]


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_two_layers_are_the_equations(training, use_bias):
    """Two layers over ragged rows compute what the paper's equations say, lane by lane, with and without biases."""
    torch.manual_seed(3)
    model = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3, use_bias=use_bias).double()
    x, lengths, noise = torch.randn(4, 6, 3).double(), [6, 0, 3, 1], torch.randn(2, 6, 4, 3).double()
    model = inject(model, noise) if training else model
    actual = flat(model.train(training)(x, 0.7, lengths))
    h = x.numpy(force=True)
    for layer in range(2):
        weights = getattr(model, f"cell_{layer}").state_dict()
        drawn = noise[layer].numpy(force=True) if training else None
        h, z, q, c = transcription(weights, h, np.array(lengths), drawn, 0.7)
        np.testing.assert_allclose(actual["h_last"][layer].numpy(force=True), h[:, -1], rtol=0, atol=1e-13)
        np.testing.assert_allclose(actual["c_last"][layer].numpy(force=True), c, rtol=0, atol=1e-13)
    for key, expected in (("h_seq", h), ("z", z), ("q_z", q)):
        np.testing.assert_allclose(actual[key].numpy(force=True), expected, rtol=0, atol=1e-13)
    expected = h[:, -1] @ model.fc.weight.numpy(force=True).T + model.fc.bias.numpy(force=True)
    np.testing.assert_allclose(actual["output"].numpy(force=True), expected, rtol=0, atol=1e-13)


def test_one_lane_is_torchs_lstm():
    """With k = 1 there is nothing to choose, and two layers are nn.LSTM with the gates in its order."""
    torch.manual_seed(4)
    model, oracle = MarkovLSTM(3, 5, 2, num_layers=2, k_cells=1).double(), nn.LSTM(3, 5, 2, batch_first=True).double()
    with torch.no_grad():
        for layer in range(2):
            cell = getattr(model, f"cell_{layer}")
            parts = {"weight_ih": cell.W_x_4gates.t(), "weight_hh": cell.W_h_4gates.t(), "bias_ih": cell.b_4gates}
            for name, weight in parts.items():
                i, g, f, o = weight.chunk(4)
                getattr(oracle, f"{name}_l{layer}").copy_(torch.cat([i, f, g, o]))
            getattr(oracle, f"bias_hh_l{layer}").zero_()
    x = torch.randn(3, 7, 3).double()
    outputs, (h, c) = oracle(x)
    actual = flat(model.train()(x))
    for key, expected in (("h_seq", outputs), ("h_last", h), ("c_last", c)):
        torch.testing.assert_close(actual[key], expected)


def test_gradients_of_the_draw_are_the_functions():
    """In train(), the noise held still, inputs, states and all weights of two layers pass gradcheck."""
    torch.manual_seed(12)
    noise = torch.randn(2, 3, 2, 2).double()
    model = inject(MarkovLSTM(2, 2, 2, num_layers=2).double(), noise).train()
    names, weights = zip(*model.named_parameters(), strict=True)
    inputs = [torch.randn(shape).double().requires_grad_() for shape in ((2, 3, 2), (2, 2, 2), (2, 2, 2))]

    def run(x, h, c, *weights):
        for cell in (model.cell_0, model.cell_1):
            cell.drawn = 0
        given = dict(zip(names, weights, strict=True))
        return tuple(flat(torch.func.functional_call(model, given, (x, 0.7, [3, 2], (h, c)))).values())

    assert torch.autograd.gradcheck(run, (*inputs, *weights))


# -- the draw -------------------------------------------------------------------------------------------------


def share_of_lanes(logits, rows, tau):
    """Return how often each lane has the largest z in as many draws."""
    cell = MarkovCell(1, 1, len(logits)).train()
    cell.tau = tau
    z = cell.choose(logits.repeat(rows, 1), logits.softmax(0).repeat(rows, 1))
    return torch.bincount(z.argmax(1), minlength=len(logits)).double() / rows, z


def is_the_law(share, q, rows):
    """Whether every share lies within five standard errors of its probability."""
    q = q.double()
    return bool(((share - q).abs() <= 5 * (q * (1 - q) / rows).sqrt()).all())


@pytest.mark.parametrize("tau", [1.0, 0.01])
def test_the_largest_z_is_a_draw_from_q(tau):
    """The lane of the largest z follows q at any temperature, and at a small one z is all but that lane's one-hot."""
    torch.manual_seed(11)
    logits, rows = torch.tensor([0.5, -1.0, 0.0, 1.2]), 40_000
    share, z = share_of_lanes(logits, rows, tau)
    assert is_the_law(share, logits.softmax(0), rows)
    assert not is_the_law(share, (logits * 1.1).softmax(0), rows)  # the test tells laws this near apart
    assert z.amax(1).mean() > (0.98 if tau < 0.1 else 0.5)


def test_noise_is_drawn_as_torchs_gumbel_softmax_draws_it():
    """From one seed, layer by layer and step by step, the z of both layers are those of `F.gumbel_softmax`."""
    torch.manual_seed(8)
    model = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3)
    x = torch.randn(2, 5, 3)
    torch.manual_seed(9)
    _, z, q_z, _, _ = model(x, 0.6)
    torch.manual_seed(9)
    for _ in range(5):
        F.gumbel_softmax(torch.zeros(2, 3))  # the lower layer's
    expected = [F.gumbel_softmax(q_z[:, t].log(), 0.6) for t in range(5)]
    torch.testing.assert_close(z, torch.stack(expected, 1))


def test_no_gradient_reaches_the_choice_in_eval_and_some_does_in_train():
    """In eval() the output has no gradient for what q is computed from; in train() every weight has one."""
    torch.manual_seed(2)
    model = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3)
    x, choosing = torch.randn(4, 5, 3), ("W_xz", "W_hz", "b_xz")
    model.eval()(x)[0].square().sum().backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert silent == {f"cell_{layer}.{name}" for layer in range(2) for name in choosing}
    model.train()(x)[0].square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())


# -- what kLSTM.py gets wrong ---------------------------------------------------------------------------------


@pytest.fixture
def model():
    torch.manual_seed(6)
    return MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3).eval()


@pytest.fixture
def x():
    return torch.randn(4, 9, 3, generator=torch.Generator(Chosen.device).manual_seed(7))


def test_returned_states_of_all_layers_continue_the_sequence(model, x):
    """Two layers fed in pieces, each from the (h, c) returned before it, give what one pass gives, scripted too."""
    whole = flat(model(x))
    for runner in (model, torch.jit.script(model)):
        state, pieces = None, []
        for piece in x.split([4, 0, 1, 4], 1):
            result = runner(piece, 1.0, None, state)
            pieces.append(flat(result))
            state = result[-1]
        for key in ("z", "q_z", "h_seq"):
            torch.testing.assert_close(torch.cat([piece[key] for piece in pieces], 1), whole[key])
        for key in ("output", "h_last", "c_last"):
            torch.testing.assert_close(pieces[-1][key], whole[key])


def test_rows_end_at_their_lengths(model, x):
    """A row of length n gives what its first n steps give by themselves; at length 0 its state does not change."""
    start = (torch.randn(2, 4, 4), torch.randn(2, 4, 4))
    lengths = [9, 0, 5, 1]
    ragged = flat(model(x, 1.0, lengths, start))
    for row, length in enumerate(lengths):
        state = tuple(tensor[:, row : row + 1] for tensor in start)
        alone = flat(model(x[row : row + 1, :length], 1.0, None, state))
        for key in ("z", "q_z", "h_seq"):
            torch.testing.assert_close(ragged[key][row, :length], alone[key][0])
        torch.testing.assert_close(ragged["output"][row], alone["output"][0])
        for key in ("h_last", "c_last"):
            torch.testing.assert_close(ragged[key][:, row], alone[key][:, 0])
        last = alone["h_last"][-1].expand(9 - length, -1)
        torch.testing.assert_close(ragged["h_seq"][row, length:], last)


def test_train_and_eval_decide_whether_lanes_are_drawn(model, x):
    """Two calls agree in eval(), where z is q's largest lane, and differ in train(), also scripted."""
    for runner in (model, torch.jit.script(model)):
        runner.eval()
        torch.testing.assert_close(runner(x), runner(x))
        _, z, q_z, _, _ = runner(x)
        assert torch.equal(z, F.one_hot(q_z.argmax(2), 3).float())
        runner.train()
        assert not torch.equal(runner(x)[1], runner(x)[1])


def test_the_temperature_is_the_calls(x):
    """From the same noise, a call at half the temperature doubles the log-odds of every two lanes, scripted too."""
    torch.manual_seed(5)
    model = MarkovLSTM(3, 4, 2, k_cells=3)
    for runner in (model, torch.jit.script(model)):
        log_odds = {}
        for tau in (0.5, 1.0):
            torch.manual_seed(1)
            log_z = runner(x[:, :1], tau)[1].log()
            log_odds[tau] = log_z - log_z[..., :1]
        torch.testing.assert_close(log_odds[0.5], 2 * log_odds[1.0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_float64_and_any_batch_pass_through_scripts(training):
    """A double model computes in double in both modes, eager and scripted, at any batch and length, none included."""
    torch.manual_seed(1)
    model = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3).double().train(training)
    scripted = torch.jit.script(model)
    for batch, steps in ((2, 3), (5, 11), (0, 4), (3, 0)):
        x = torch.randn(batch, steps, 3).double()
        results = []
        for runner in (model, scripted):
            torch.manual_seed(0)
            results.append(runner(x, 0.5, torch.full([batch], steps)))
        torch.testing.assert_close(results[1], results[0])
        assert results[0][0].dtype == torch.float64


def test_dropout_is_between_layers_and_only_in_training(x):
    """The upper layer receives the lower one's output through dropout in train(), and unchanged in eval()."""
    torch.manual_seed(5)
    model = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=1, dropout_prob=0.5)
    plain = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=1)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    heard, expected = model.train()(x), plain.train()(x)
    torch.testing.assert_close(heard[4][0][0], expected[4][0][0])
    assert not torch.allclose(heard[4][0][1], expected[4][0][1])


def test_construction_is_quiet_and_the_model_prints(capsys):
    """Nothing is printed at construction, and the representation names the sizes."""
    model = MarkovLSTM(3, 4, 2, k_cells=5)
    assert capsys.readouterr().out == ""
    assert "MarkovCell(input_size=3, hidden_size=4, k=5, tau=1.0)" in str(model)


def test_weights_start_within_the_references_bounds():
    """Each weight is uniform within one over the root of its last axis: its spread is the bound's root of a third."""
    torch.manual_seed(0)
    for name, weight in MarkovCell(40, 50, 4).named_parameters():
        bound = weight.size(-1) ** -0.5
        assert weight.abs().max() <= bound
        if weight.numel() > 1000:
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name


def test_state_dicts_go_through_scripts_copies_and_back(model, x):
    """The keys are kLSTM.py's in the module, a copy and a script alike, and loading them gives the same numbers."""
    keys = {"fc.weight", "fc.bias"} | {
        f"cell_{layer}.{name}"
        for layer in range(2)
        for name in ("W_xz", "W_hz", "W_x_4gates", "W_h_4gates", "b_xz", "b_4gates")
    }
    for source in (model, copy.deepcopy(model), torch.jit.script(model)):
        assert set(source.state_dict()) == keys
        loaded = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3).eval()
        loaded.load_state_dict(source.state_dict())
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_whatever_it_makes_lies_where_its_weights_do(training):
    """On a device that is not torch's default, lengths follow x, a list too; meta cannot mix with other devices."""
    model = MarkovLSTM(3, 4, 2, num_layers=2, k_cells=3, dropout_prob=0.1).to("meta").train(training)
    x = torch.zeros(4, 9, 3, device="meta")
    for run in (model, torch.jit.script(model)):
        for lengths in (None, [9, 0, 5, 1], torch.zeros(4, dtype=torch.int64, device="meta")):
            assert all(tensor.is_meta for tensor in flat(run(x, 1.0, lengths)).values())


def test_a_shared_state_and_a_state_per_layer_say_the_same(model, x):
    """A state (B, H) starts every layer alike, as (L, B, H) of that state repeated does."""
    h, c = torch.randn(4, 4), torch.randn(4, 4)
    torch.testing.assert_close(model(x, s_t=(h, c)), model(x, s_t=(h.repeat(2, 1, 1), c.repeat(2, 1, 1))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(2, 5, 4)}, r"x must be \(batch, steps, 3\), got \[2, 5, 4\]"),
        ({"x": torch.zeros(5, 3)}, r"x must be \(batch, steps, 3\), got \[5, 3\]"),
        ({"tau": 0.0}, "tau must be above 0, got 0.0"),
        ({"length": [5, 6]}, "lengths must be from 0 to 5, the number of steps, got 6"),
        ({"length": [5]}, r"lengths must be int64 \[2\], got torch.int64 \[1\]"),
        (
            {"s_t": (torch.zeros(2, 4), torch.zeros(1, 2, 4))},
            r"h and c must be \[2, 2, 4\] or \[2, 4\], got \[1, 2, 4\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(model, arguments, message):
    """Wrong shapes, lengths and temperatures raise ValueError with the value seen and the value allowed."""
    with pytest.raises(ValueError, match=message):
        model(**{"x": torch.zeros(2, 5, 3), **arguments})


def test_a_next_item_model_shows_which_lane_listened():
    """In a `NextItemModel` z and q_z of every layer are diagnostics: of unrolled sequences, and of steps alike."""
    torch.manual_seed(1)
    model = NextItemModel("markov", 7, 4, k=3, num_layers=2).eval()
    assert model.diagnostic_names == ["z_l0", "q_z_l0", "z_l1", "q_z_l1"]
    items = torch.randint(0, 7, (3, 6))
    *_, diagnostics = model.unroll_with_diagnostics(items)
    x = F.one_hot(items, 7).double().numpy(force=True)
    for layer in range(2):
        x, z, q, _ = transcription(model.cells[str(layer)].state_dict(), x, np.full(3, 6), None, 1.0)
        np.testing.assert_allclose(diagnostics[2 * layer].numpy(force=True), z, rtol=0, atol=1e-6)
        np.testing.assert_allclose(diagnostics[2 * layer + 1].numpy(force=True), q, rtol=0, atol=1e-6)
    state = None
    for t in range(6):
        _, state, shown = model.step_with_diagnostics(items[:, t], state)
        torch.testing.assert_close(shown, [diagnostic[:, t] for diagnostic in diagnostics])
