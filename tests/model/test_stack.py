"""Stacks of cells: layers one after the other, each with its own state."""

import pytest
import torch

from arraylstm import ArrayLSTM, Stack, make_stack
from arraylstm.cells.lstm2002 import PeepholeLSTM
from arraylstm.cells.markov import MarkovCell


@pytest.fixture
def mixed():
    torch.manual_seed(4)
    return Stack([MarkovCell(5, 4, 2), ArrayLSTM(4, 6, 3), PeepholeLSTM(6, 4, 2)], dropout=0.5).eval()


def draw(stack, batch=3, steps=6):
    x = torch.randn(batch, steps, stack.input_size)
    return x, [torch.randn(batch, *shape) for shape in stack.state_shapes]


def test_a_stack_is_its_layers_one_after_the_other(mixed):
    """Outputs, states and diagnostics equal those of the cells, each fed by the one below, in the names' order."""
    x, state = draw(mixed)
    assert mixed.state_names == ["h_l0", "c_l0", "h_l1", "c_l1", "c_l2", "h_l2"]
    assert mixed.diagnostic_names == ["z_l0", "q_z_l0", "c_l2"]
    outputs, last, diagnostics = mixed.unroll(x, state)
    below, expected, shown = x, [], []
    for number, cell in enumerate(mixed.values()):
        below, after, diagnostic = cell.unroll_with_diagnostics(below, state[2 * number : 2 * number + 2])
        expected += after
        shown += diagnostic
    torch.testing.assert_close(outputs, below)
    torch.testing.assert_close(last, expected)
    torch.testing.assert_close(diagnostics, shown)


def test_steps_give_what_unrolling_gives(mixed):
    """Step by step through all layers is the whole sequence layer by layer, diagnostics included."""
    x, state = draw(mixed)
    outputs, last, diagnostics = mixed.unroll(x, state)
    for t in range(x.size(1)):
        output, state, shown = mixed.step(x[:, t], state)
        torch.testing.assert_close(output, outputs[:, t])
        torch.testing.assert_close(shown, [diagnostic[:, t] for diagnostic in diagnostics])
    torch.testing.assert_close(state, last)


def test_forward_starts_from_zeros_stops_at_lengths_and_scripts(mixed):
    """A row gives the same by itself and in a batch, and so does the scripted stack."""
    x, state = draw(mixed)
    lengths = torch.tensor([6, 0, 4])
    outputs, last = mixed(x, None, lengths)
    torch.testing.assert_close(torch.jit.script(mixed)(x, None, lengths), (outputs, last))
    torch.testing.assert_close(mixed(x), mixed(x, [torch.zeros_like(tensor) for tensor in state]))
    alone, alone_last = mixed(x[2:, :4])
    torch.testing.assert_close(outputs[2:, :4], alone)
    torch.testing.assert_close([tensor[2:] for tensor in last], alone_last)
    assert not outputs[1].any()
    assert not any(tensor[1].any() for tensor in last)


def test_dropout_acts_between_layers_and_in_training_only():
    """A single layer drops nothing; of two, the upper one receives some zeros, and its own outputs have none."""
    x = torch.randn(2, 5, 4)
    one = make_stack("array", 4, 6, num_layers=1, dropout=0.9).train()
    assert torch.equal(one(x)[0], one(x)[0])
    two = make_stack("array", 4, 6, num_layers=2, dropout=0.9).train()
    assert not torch.equal(two(x)[0], two(x)[0])
    assert two(x)[0].all()
    two.eval()
    assert torch.equal(two(x)[0], two(x)[0])


def test_layers_may_have_names_of_their_own():
    """A mapping's keys are the layers' names in the state dict."""
    stack = Stack({"bottom": ArrayLSTM(2, 3, 1), "top": ArrayLSTM(3, 3, 1)})
    assert {key.split(".")[0] for key in stack.state_dict()} == {"bottom", "top"}
    assert stack.state_names == ["h_l0", "c_l0", "h_l1", "c_l1"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stack([]), "a stack needs at least one cell"),
        (lambda: Stack([ArrayLSTM(2, 3, 1), ArrayLSTM(4, 3, 1)]), "layer 1 takes inputs of width 4, .* below gives 3"),
        (lambda: make_stack("array", 2, 3, dropout=-0.1), r"dropout must be at least 0 and below 1, got -0\.1"),
        (lambda: make_stack("array", 2, 3, num_layers=0), "num_layers must be an integer of at least 1, got 0"),
        (lambda: make_stack("gru", 2, 3), "unknown cell 'gru'"),
        (lambda: make_stack("array", 2, 3)(torch.zeros(1, 4, 3)), r"x must be \(batch, steps, 2\), got \[1, 4, 3\]"),
        (lambda: make_stack("array", 2, 3)(torch.zeros(1, 4, 2), []), "state must be 2 tensors, got 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(make, message):
    """ValueError says what was given and what is needed."""
    with pytest.raises(ValueError, match=message):
        make()


def test_a_packed_sequence_is_refused_by_name(mixed):
    """Ragged batches are a padded tensor and lengths; the error says so."""
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.zeros(2, 4, 5), [4, 2], batch_first=True)
    for layer in (mixed, ArrayLSTM(5, 4, 2)):
        with pytest.raises(TypeError, match="x must be a tensor padded to equal length, .* got a PackedSequence"):
            layer(packed)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([1, 2]), r"lengths must be int64 \[3\], got torch.int64 \[2\]"),
        (torch.tensor([1.0, 2.0, 3.0]), r"lengths must be int64 \[3\], got torch.float32 \[3\]"),
        (torch.tensor([1, 2, 7]), "lengths must be from 0 to 6, the number of steps, got 7"),
        (torch.tensor([1, -2, 6]), "lengths must be from 0 to 6, the number of steps, got -2"),
    ],
)
def test_wrong_lengths_are_refused(mixed, lengths, message):
    """Shape, dtype and range of lengths are checked, in stacks and in single layers."""
    for layer in (mixed, ArrayLSTM(5, 4, 2)):
        with pytest.raises(ValueError, match=message):
            layer(torch.zeros(3, 6, 5), None, lengths)
