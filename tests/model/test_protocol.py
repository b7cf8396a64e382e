"""The cell protocol: what every row of the registry promises, also one that is added at test time."""

import pytest
import torch

from arraylstm import CELLS, LSTM2002Layer, NextItemModel
from arraylstm.cells import make_cell

from ..devices import draws_nothing


@pytest.fixture(params=CELLS)
def name(request):
    torch.manual_seed(5)
    return request.param


@pytest.fixture
def cell(name):
    return make_cell(name, 5, 6, k=3).eval()


def draw(cell, batch=4, steps=7, dtype=torch.float32):
    x = torch.randn(batch, steps, cell.input_size, dtype=dtype)
    return x, [torch.randn(batch, *shape, dtype=dtype) for shape in cell.state_shapes().values()]


def test_steps_give_what_unrolling_gives(cell):
    """One step after the other over projected inputs is the unrolled sequence, diagnostics included."""
    x, state = draw(cell)
    outputs, last, diagnostics = cell.unroll_with_diagnostics(x, state)
    for t in range(x.size(1)):
        projected = cell.project(x[:, t])
        output, _, shown = cell.step_with_diagnostics(projected, state)
        torch.testing.assert_close(shown, [diagnostic[:, t] for diagnostic in diagnostics])
        torch.testing.assert_close(output, outputs[:, t])
        output, state = cell.step(projected, state)
        torch.testing.assert_close(output, outputs[:, t])
    torch.testing.assert_close(state, last)


def test_outputs_states_and_diagnostics_have_the_shapes_that_were_named(cell):
    """Results are shaped as `state_shapes`, `diagnostic_shapes` and `hidden_size` say, for S = 0 and B = 0 too."""
    for batch, steps in ((4, 7), (4, 0), (0, 7)):
        x, state = draw(cell, batch, steps)
        outputs, last, diagnostics = cell.unroll_with_diagnostics(x, state)
        assert outputs.shape == (batch, steps, cell.hidden_size)
        assert [tensor.shape[1:] for tensor in last] == list(cell.state_shapes().values())
        assert [tensor.shape for tensor in diagnostics] == [
            (batch, steps, *s) for s in cell.diagnostic_shapes().values()
        ]


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_a_cell_can_be_called(cell, scripted):
    """Called with sequences only, it unrolls from its initial state; LSTM2002Layer returns its cells first."""
    x, _ = draw(cell)
    run = torch.jit.script(cell) if scripted else cell
    outputs, _ = cell.unroll(x, cell.initial_state(4, x))
    torch.testing.assert_close(run(x)[1 if isinstance(cell, LSTM2002Layer) else 0], outputs)


def test_pieces_give_what_the_whole_gives(cell):
    """A sequence in pieces, the state handed on, equals one call."""
    x, state = draw(cell, steps=9)
    whole, last = cell.unroll(x, state)
    pieces = []
    for piece in x.split([1, 5, 3], 1):
        output, state = cell.unroll(piece, state)
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state, last)


@torch.no_grad()
def test_rows_are_independent_and_what_was_handed_in_is_untouched(cell):
    """A row gives the same by itself and in a batch, and neither x nor a state is written to, for S = 0 too."""
    x, state = draw(cell)
    copies = [tensor.clone() for tensor in (x, *state)]
    outputs, last = cell.unroll(x, state)
    alone, alone_last = cell.unroll(x[2:3], [tensor[2:3] for tensor in state])
    torch.testing.assert_close(alone, outputs[2:3])
    torch.testing.assert_close(alone_last, [tensor[2:3] for tensor in last])
    for tensor in (*last, *cell.unroll(x[:, :0], state)[1]):
        tensor.zero_()
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((x, *state), copies, strict=True))


def test_a_row_stops_at_its_length_whatever_pads_it(cell):
    """With lengths, a row has the outputs and state of its own steps, zeros past them, and finite gradients."""
    x, state = draw(cell)
    lengths = torch.tensor([7, 0, 3, 1])
    x[1], x[2, 3:] = torch.nan, torch.inf
    outputs, last = cell.unroll(x, state, lengths)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        expected, expected_last = cell.unroll(x[one, :length], [tensor[one] for tensor in state])
        torch.testing.assert_close(outputs[one, :length], expected)
        assert not outputs[one, length:].any()
        torch.testing.assert_close([tensor[one] for tensor in last], expected_last)
    (outputs.sum() + sum(tensor.sum() for tensor in last)).backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in cell.parameters())


def test_no_steps_draw_nothing(cell):
    """A sequence of length 0 leaves the random generator where it was, in training too."""
    x, state = draw(cell, steps=0)
    with draws_nothing():
        cell.train().unroll(x, state)


def test_the_scripted_cell_gives_the_same_in_training_and_evaluation(cell):
    """torch.jit.script freezes neither batch nor length, and draws what the eager cell draws."""
    scripted = torch.jit.script(cell)
    for training in (False, True):
        cell.train(training)
        scripted.train(training)
        for batch, steps in ((1, 1), (4, 7), (2, 13), (3, 0)):
            x, state = draw(cell, batch, steps)
            lengths = torch.randint(0, steps + 1, (batch,))
            torch.manual_seed(batch)
            expected = cell.unroll_with_diagnostics(x, state, lengths)
            torch.manual_seed(batch)
            torch.testing.assert_close(scripted.unroll_with_diagnostics(x, state, lengths), expected)


@pytest.mark.parametrize(("training", "embedding_size"), [(False, None), (True, 4)])
def test_whatever_a_model_makes_lies_where_its_weights_do(name, training, embedding_size):
    """On another device than torch's default a model, scripted too, makes no tensor elsewhere and reads none.

    The device is meta, which has no numbers to read. So a CUDA graph can capture the model and its gradients.
    """
    model = NextItemModel(name, 7, 6, k=3, num_layers=2, embedding_size=embedding_size, dropout=0.1)
    model = model.to("meta").train(training)
    items, lengths = (torch.zeros(*shape, dtype=torch.int64, device="meta") for shape in ((4, 9), (4,)))
    for run in (model, torch.jit.script(model)):
        logits, state, diagnostics = run.unroll_with_diagnostics(items, None, lengths)
        scores, following, shown = run.step_with_diagnostics(items[:, 0], state)
        assert all(tensor.is_meta for tensor in (logits, *state, *diagnostics, scores, *following, *shown))
        torch.autograd.grad(logits.sum(), list(run.parameters()), allow_unused=True)


@pytest.mark.parametrize(("training", "backend"), [(False, "eager"), (True, "aot_eager")])
def test_it_compiles_whole(cell, training, backend):
    """torch.compile takes a cell's unrolling without a break, and gives its outputs, states and gradients.

    In training its gradients' graph is compiled ahead too.
    """
    torch.compiler.reset()
    cell.train(training)
    x, state = draw(cell, steps=2)
    inputs = [tensor.requires_grad_() for tensor in (x, *state, *cell.parameters())]
    lengths = torch.tensor([2, 0, 1, 2])
    results = []
    for run in (cell.unroll, torch.compile(cell.unroll, backend=backend, fullgraph=True)):
        torch.manual_seed(1)
        outputs, last = run(x, state, lengths)
        loss = outputs.sum() + sum(tensor.sum() for tensor in last)
        results.append((outputs, last, torch.autograd.grad(loss, inputs, materialize_grads=True)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("dtype", "resolved"), [(torch.float32, 1e-5), (torch.bfloat16, 0.04)])
def test_outputs_and_states_have_the_dtype_of_input_and_weights(cell, dtype, resolved):
    """A cell moved to another float dtype works in it, and gives its float64 results as well as that dtype can.

    Where a cell picks a lane it may pick another one in another dtype.
    """
    cell = cell.to(dtype)
    x, state = draw(cell, steps=3, dtype=dtype)
    outputs, last = cell.unroll(x, state)
    assert {tensor.dtype for tensor in (outputs, *last)} == {dtype}
    exact, exact_last = cell.double().unroll(x.double(), [tensor.double() for tensor in state])
    for ours, theirs in zip((outputs, *last), (exact, *exact_last), strict=True):
        near = ((ours.double() - theirs).abs() < resolved * theirs.abs().clamp(min=1)).double().mean()
        assert near == 1 or (cell.picks_lanes and near > 0.7)


def test_gradients_are_those_of_finite_differences(name):
    """gradcheck passes in float64 for inputs, states and parameters, in evaluation, where nothing is drawn."""
    cell = make_cell(name, 2, 3, k=3).double().eval()
    unrolled = Unrolled(cell)
    x, state = draw(cell, batch=2, steps=2, dtype=torch.float64)

    def run(x, *rest):
        given, weights = list(rest[: len(state)]), rest[len(state) :]
        named = {key: weight for (key, _), weight in zip(unrolled.named_parameters(), weights, strict=True)}
        outputs, last, diagnostics = torch.func.functional_call(unrolled, named, (x, given, torch.tensor([2, 1])))
        return outputs, *last, *diagnostics

    inputs = [tensor.requires_grad_() for tensor in (x, *state)]
    assert torch.autograd.gradcheck(run, (*inputs, *unrolled.parameters()))


class Unrolled(torch.nn.Module):
    """A cell's `unroll_with_diagnostics` as a module's forward, which is what torch.func calls."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, state, lengths):
        return self.cell.unroll_with_diagnostics(x, state, lengths)


def test_every_weight_of_a_stack_learns(name):
    """In training every weight of two layers of unequal widths has a gradient."""
    model = NextItemModel(name, 7, 6, k=3, num_layers=2, embedding_size=4).train()
    items = torch.randint(0, 7, (8, 9))
    model(items)[0].square().sum().backward()
    assert [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []
