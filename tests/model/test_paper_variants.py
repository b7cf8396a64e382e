"""The paper's cells that array-lstm lacks, against its equations in NumPy and hand-written gradients."""

import numpy as np
import pytest
import torch
from torch import nn

import arraylstm
from arraylstm import CELLS

from .paper import (
    ATTENTION,
    CHOOSING,
    DRAWN,
    EVERY,
    HIDDEN,
    INPUT,
    MEMORY,
    Paper,
    arrays,
    chosen,
    close,
    make,
    share_taken,
    start,
    step,
)


@pytest.mark.parametrize("name", ATTENTION)
def test_an_attention_step_in_training_is_the_papers(name):
    """Given the lanes that took part, h' and c' are (4.1-4.8) with them in the place of s."""
    cell = make(name)
    paper = Paper(cell)
    x, h, c = start(cell, 64)
    s = paper.s(*arrays(x, h))
    after = step(cell, x, h, c)
    if name != "attention-recurrent":
        z = chosen(c, after[1]).numpy(force=True)
        assert (z.sum(1) == 1).all()
        assert z.any((0, 2)).all()  # every forced choice is among them
        assert name != "max-lane" or (z.argmax(1) == s.argmax(1)).all()
        s = z
    close(after, paper.attention(*arrays(x, h, c), s))


@pytest.mark.parametrize("name", MEMORY)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_memory_step_in_training_is_the_papers(name, k):
    """Given the lanes that took part, h' and c' are section 5.2's; the other lanes keep every bit."""
    cell = make(name, k)
    x, h, c = start(cell, 64)
    after = step(cell, x, h, c)
    m = chosen(c, after[1]).numpy(force=True)
    assert m.any((0, 2)).all()  # every forced choice is among them
    close(after, Paper(cell).memory(*arrays(x, h, c), m))


@pytest.mark.parametrize("name", EVERY)
def test_a_step_in_inference_is_the_papers_or_its_mean(name):
    """In eval() h' and c' are soft attention's, the largest lane's, or the mean over the lanes that may be drawn."""
    cell = make(name).eval()
    paper = Paper(cell)
    x, h, c = start(cell, 64)
    given = arrays(x, h, c)
    s = paper.s(*given[:2]) if name in ATTENTION else None
    if name == "attention-recurrent":
        expected = paper.attention(*given, s)
    elif name == "max-lane":
        expected = paper.attention(*given, np.eye(3)[s.argmax(1)].transpose(0, 2, 1))
    elif name in MEMORY:
        expected = paper.memory_mean(*given, share_taken(name, 3))
    else:
        expected = paper.attention_mean(*given)
    close(step(cell, x, h, c), expected)


def test_without_recurrent_weights_attention_is_array_lstms():
    """With h2a zero, sequences give what AttentionArrayLSTM gives on the same other weights."""
    recurrent, plain = make("attention-recurrent"), make("attention")
    nn.init.zeros_(recurrent.h2a.weight)
    missing = plain.load_state_dict(recurrent.state_dict(), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == ([], ["h2a.weight"])
    x = torch.randn(4, 7, INPUT, dtype=torch.float64)
    torch.testing.assert_close(recurrent(x), plain(x))


def test_of_equal_lanes_the_first_is_processed():
    """MaxLaneArrayLSTM with attention weights of zero processes lane 0 alone, in train() and eval()."""
    cell = make("max-lane")
    for weight in (*cell.i2a.parameters(), *cell.h2a.parameters()):
        nn.init.zeros_(weight)
    x, h, c = start(cell, 8)
    for mode in (True, False):
        _, after = step(cell.train(mode), x, h, c)
        assert torch.equal(chosen(c, after)[0], torch.tensor([[1.0] * HIDDEN, [0.0] * HIDDEN, [0.0] * HIDDEN]).double())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("training", [True, False])
def test_one_lane_is_an_lstm(name, training):
    """With k = 1 memory arrays are LSTM, and attention cells LSTM with the forget rows negated (s(-a) = 1 - s(a))."""
    cell, lstm = make(name, k=1).train(training), arraylstm.LSTM(INPUT, HIDDEN).double()
    lstm.load_state_dict({key: cell.state_dict()[key] for key in lstm.state_dict()})
    if name in ATTENTION:
        with torch.no_grad():
            for weight in lstm.parameters():
                weight[:HIDDEN].neg_()
    x = torch.randn(4, 7, INPUT, dtype=torch.float64)
    torch.testing.assert_close(cell(x), lstm(x), rtol=0, atol=1e-12)


class Soft(torch.autograd.Function):
    """Lanes z in the place of s, with soft attention's gradient: dz = ds."""

    @staticmethod
    def forward(ctx, s, z):
        return z

    @staticmethod
    def backward(ctx, dz):
        return dz, None


class ChosenOnly(torch.autograd.Function):
    """Lanes z in the place of s, with the gradient of the chosen lane: dz_j = ds_j where z_j = 1, else 0."""

    @staticmethod
    def forward(ctx, s, z):
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx, dz):
        (z,) = ctx.saved_tensors
        return torch.where(z == 1, dz, torch.zeros_like(dz)), None


class TestGradients:
    """The backward passes of the paper: semi-hard, hard and maximum."""

    def straight_through(self, cell, x, h, c, lanes, link):
        """The loss of three steps with the lanes given: the equations again, s replaced through `link`."""
        loss = torch.zeros((), dtype=torch.float64)
        for t, z in enumerate(lanes):
            a = (cell.i2h(x[:, t]) + cell.h2h(h)).view(len(x), cell.k, 4, HIDDEN)
            f, i, o = a[:, :, :3].sigmoid().unbind(2)
            s = (cell.i2a(x[:, t]) + cell.h2a(h)).sigmoid().view(len(x), cell.k, HIDDEN).softmax(1)
            z = link.apply(s, z)
            c = z * ((1 - f) * c + i * a[:, :, 3].tanh()) + (1 - z) * c
            h = (z * o * c.tanh()).sum(1)
            loss = loss + h.square().sum() + c.sin().sum()
        return loss

    @pytest.mark.parametrize(
        ("name", "link"), [("attention-semi-hard", Soft), ("attention-hard", ChosenOnly), ("max-lane", ChosenOnly)]
    )
    def test_they_are_the_hand_written_ones(self, name, link):
        """Over three steps every weight's gradient is that of the equations with dz = ds, or its chosen lane's."""
        cell = make(name)
        _, h0, c0 = start(cell, 4)
        x = torch.randn(4, 3, INPUT, dtype=torch.float64)
        h, c, lanes, loss = h0, c0, [], torch.zeros((), dtype=torch.float64)
        for t in range(3):
            before = c
            h, c = step(cell, x[:, t], h, c)
            lanes.append(chosen(before, c))
            loss = loss + h.square().sum() + c.sin().sum()
        weights = list(cell.parameters())
        expected = torch.autograd.grad(self.straight_through(cell, x, h0, c0, lanes, link), weights)
        for gradient, reference in zip(torch.autograd.grad(loss, weights), expected, strict=True):
            assert reference.abs().sum() > 0
            torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", CHOOSING)
    def test_a_lane_that_is_carried_gets_no_gradient_through_its_gates(self, name):
        """The gate weights of lanes not processed in a training step have a gradient of exactly zero."""
        cell = make(name)
        x, h, c = start(cell, 1)
        after = step(cell, x, h, c)
        sum(tensor.sum() for tensor in after).backward()
        per_lane = cell.i2h.bias.grad.view(cell.k, 4, HIDDEN)
        for lane, unit in (chosen(c, after[1])[0] == 0).nonzero().tolist():
            assert not per_lane[lane, :, unit].any()
        for lane, unit in chosen(c, after[1])[0].nonzero().tolist():
            assert per_lane[lane, :, unit].all()

    @pytest.mark.parametrize("name", ["attention-recurrent", *DRAWN])
    def test_inference_is_smooth(self, name):
        """In eval() the gradients of inputs, states and weights are those of finite differences."""
        cell = make(name).eval()
        inputs = [tensor.requires_grad_() for tensor in start(cell, 2)]
        names = [key for key, _ in cell.named_parameters()]

        def run(x, h, c, *weights):
            hidden = (h.unsqueeze(0), c.transpose(0, 1))
            outputs, state = torch.func.functional_call(
                cell, dict(zip(names, weights, strict=True)), (torch.stack([x, x.flip(1)], 1), hidden)
            )
            return outputs, *state

        assert torch.autograd.gradcheck(run, (*inputs, *cell.parameters()))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("training", [True, False])
def test_the_scripted_cell_gives_the_same(name, training):
    """Scripted and eager agree in outputs, states and gradients from the same seed, whatever the batch and length."""
    cell = make(name).train(training)
    scripted = torch.jit.script(cell)
    for batch, steps in ((1, 1), (4, 7), (2, 9), (0, 3), (3, 0)):
        x = torch.randn(batch, steps, INPUT, dtype=torch.float64)
        results = []
        for run in (cell, scripted):
            torch.manual_seed(batch)
            outputs, (h, c) = run(x)
            loss = outputs.square().sum() + c.square().sum()
            gradients = torch.autograd.grad(loss, list(run.parameters()), allow_unused=True) if batch * steps else []
            results.append((outputs, h, c, *[gradient for gradient in gradients if gradient is not None]))
        torch.testing.assert_close(*results)


class Mean(arraylstm.ArrayLSTM):
    """An override of update_hidden, to be mixed in."""

    def update_hidden(self, outputs: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return (outputs * states.tanh()).mean(0, keepdim=True)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("training", [True, False])
def test_an_overridden_update_hidden_is_used(name, training):
    """Averaging the lanes instead of summing them divides the first output by k, drawn or not, eager and scripted."""
    plain = make(name).train(training)
    mean = type("Own", (CELLS[name],), {"update_hidden": Mean.update_hidden})(INPUT, HIDDEN, 3)
    mean.double().train(training).load_state_dict(plain.state_dict())
    x = torch.randn(4, 1, INPUT, dtype=torch.float64)
    results = []
    for run in (plain, mean, torch.jit.script(mean)):
        torch.manual_seed(1)
        results.append(run(x)[0])
    torch.testing.assert_close(3 * results[1], results[0])
    torch.testing.assert_close(results[2], results[1])


@pytest.mark.parametrize("name", EVERY)
def test_forward_cell_is_one_step_of_forward(name):
    """The documented single step agrees with a sequence of one, in train() from the same seed too."""
    cell = make(name)
    x, h, c = start(cell, 4)
    hidden, state = h.unsqueeze(0), c.transpose(0, 1)
    for mode in (True, False):
        cell.train(mode)
        torch.manual_seed(1)
        _, last = cell(x.unsqueeze(1), (hidden, state))
        torch.manual_seed(1)
        torch.testing.assert_close(cell.forward_cell(x, hidden, state), last)


@pytest.mark.parametrize("name", MEMORY)
def test_a_memory_array_has_array_lstms_weights(name):
    """State-dict keys and shapes are ArrayLSTM's, so trained weights move between them."""
    ours, theirs = make(name).state_dict(), make("array").state_dict()
    assert [(key, tensor.shape) for key, tensor in ours.items()] == [(key, t.shape) for key, t in theirs.items()]
    make(name).load_state_dict(theirs)
