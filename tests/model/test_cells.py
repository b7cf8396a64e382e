"""What every cell that array-lstm has promises beyond the protocol (`test_protocol`): its interface and weights."""

import pytest
import torch
from torch import nn

import arraylstm
from arraylstm import CELLS
from arraylstm.cells import make_cell

from ..devices import Chosen
from ..reference import arrayLSTM

REFERENCES = {
    arraylstm.LSTM: lambda i, h, k: arrayLSTM.LSTM(i, h),
    arraylstm.ArrayLSTM: arrayLSTM.ArrayLSTM,
    arraylstm.AttentionArrayLSTM: arrayLSTM.extensions.AttentionArrayLSTM,
    arraylstm.MaxAttentionArrayLSTM: lambda i, h, k: arrayLSTM.extensions.AttentionArrayLSTM(i, h, k, max_pooling=True),
    arraylstm.StochasticArrayLSTM: arrayLSTM.extensions.StochasticArrayLSTM,
}


@pytest.fixture(params=[name for name, cell in CELLS.items() if cell in REFERENCES], autouse=True)
def name(request):
    torch.manual_seed(7)
    return request.param


@pytest.fixture
def cell(name):
    return make_cell(name, 5, 6, k=3).eval()


@pytest.fixture
def lanes(cell):
    return cell.k


class Clip:
    """An override of forward_cell, to be mixed in."""

    def forward_cell(
        self, x: torch.Tensor, hidden: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        f, i, o, g = self.gates(self.affine(x), hidden[0])
        c = f * state.transpose(0, 1) + i * g
        h = self.pool(o, c)
        return h.unsqueeze(0).clamp(-0.01, 0.01), c.transpose(0, 1)


def draw(cell, batch=4, steps=7, dtype=torch.float32):
    x = torch.randn(batch, steps, cell.input_size, dtype=dtype)
    h = torch.randn(1, batch, cell.hidden_size, dtype=dtype)
    c = torch.randn(cell.k, batch, cell.hidden_size, dtype=dtype)
    return x, h, c


class TestEveryCell:
    """Each of the family."""

    def test_it_agrees_with_array_lstm_on_the_same_weights(self, cell):
        """Outputs and final states are those of the array-lstm package."""
        reference = REFERENCES[type(cell)](5, 6, cell.k)
        reference.load_state_dict(cell.state_dict())
        x, h, c = draw(cell)
        expected, (last_h, last_c) = reference(x, (h.clone(), c.clone()))
        outputs, state = cell(x, (h, c))
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(state, (last_h, last_c))

    def test_its_weights_load_into_array_lstm_and_back(self, cell):
        """State-dict keys and shapes are those of the array-lstm package, in its order."""
        theirs = REFERENCES[type(cell)](5, 6, cell.k).state_dict()
        ours = cell.state_dict()
        assert [(key, tensor.shape) for key, tensor in ours.items()] == [(k, t.shape) for k, t in theirs.items()]

    def test_the_scripted_cell_gives_the_same_for_any_batch_and_length(self, cell):
        """torch.jit.script freezes neither batch nor length."""
        scripted = torch.jit.script(cell)
        for batch, steps in ((1, 1), (4, 7), (2, 13)):
            x, h, c = draw(cell, batch, steps)
            torch.testing.assert_close(scripted(x, (h, c)), cell(x, (h, c)))
            torch.testing.assert_close(scripted(x), cell(x))

    def test_what_the_caller_hands_in_is_never_written_to(self, cell):
        """x, h and c are the same after a call, and the returned state does not share their memory."""
        x, h, c = draw(cell)
        before = [tensor.clone() for tensor in (x, h, c)]
        for sequence in (x, x[:, :0]):
            _, (last_h, last_c) = cell(sequence, (h, c))
            last_h.zero_()
            last_c.zero_()
        for tensor, copy in zip((x, h, c), before, strict=True):
            assert torch.equal(tensor, copy)

    def test_pieces_give_what_the_whole_gives(self, cell):
        """A sequence in pieces, the state handed on, equals one call."""
        x, h, c = draw(cell, steps=9)
        whole, last = cell(x, (h, c))
        state, pieces = (h, c), []
        for piece in x.split([1, 5, 3], 1):
            output, state = cell(piece, state)
            pieces.append(output)
        torch.testing.assert_close(torch.cat(pieces, 1), whole)
        torch.testing.assert_close(state, last)

    def test_forward_cell_is_one_step_of_forward(self, cell):
        """The documented single step agrees with a sequence of one."""
        x, h, c = draw(cell, steps=1)
        _, last = cell(x, (h, c))
        torch.testing.assert_close(cell.forward_cell(x[:, 0], h, c), last)

    def test_rows_do_not_influence_each_other(self, cell):
        """A row gives the same by itself and in a batch."""
        x, h, c = draw(cell)
        outputs, _ = cell(x, (h, c))
        alone, _ = cell(x[2:3], (h[:, 2:3], c[:, 2:3]))
        torch.testing.assert_close(alone, outputs[2:3])

    def test_no_state_is_the_zero_state(self, cell):
        """Leaving the state out starts from initHidden, which is zeros."""
        x, h, c = draw(cell)
        zeros = (torch.zeros_like(h), torch.zeros_like(c))
        torch.testing.assert_close(cell(x), cell(x, zeros))
        torch.testing.assert_close(cell.initHidden(x), zeros)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_any_float_dtype_works_without_a_state(self, cell, dtype):
        """The default state takes the input's dtype."""
        x, _, _ = draw(cell, dtype=dtype)
        outputs, (h, c) = cell.to(dtype)(x)
        assert {outputs.dtype, h.dtype, c.dtype} == {dtype}
        exact, _ = cell.double()(x.double())
        near = (outputs.double() - exact).abs() <= 64 * torch.finfo(dtype).eps
        assert near.double().mean() >= (1 if dtype == torch.float64 else 0.98)  # rounded, it may choose another lane

    def test_autocast_stays_close_to_float32(self, cell):
        """Under bfloat16 autocast the outputs are near float32's, except where another lane is chosen."""
        x, h, c = draw(cell)
        with torch.autocast(Chosen.device, torch.bfloat16):
            outputs, _ = cell(x, (h, c))
        close = (outputs.float() - cell(x, (h, c))[0]).abs() < 0.1
        assert close.float().mean() > (0.8 if isinstance(cell, arraylstm.StochasticArrayLSTM) else 0.999)

    def test_an_empty_batch_and_an_empty_sequence_work(self, cell, lanes):
        """B = 0 gives empty tensors; S = 0 gives no outputs and the state unchanged."""
        outputs, (h, c) = cell(torch.zeros(0, 7, 5))
        assert (outputs.shape, h.shape, c.shape) == ((0, 7, 6), (1, 0, 6), (lanes, 0, 6))
        x, h, c = draw(cell, steps=0)
        outputs, last = cell(x, (h, c))
        assert outputs.shape == (4, 0, 6)
        torch.testing.assert_close(last, (h, c))

    def test_a_learned_initial_state_receives_its_gradient(self, cell, lanes):
        """h0 and c0 may be parameters, expanded over the batch."""
        h0 = nn.Parameter(torch.zeros(1, 1, 6))
        c0 = nn.Parameter(torch.zeros(lanes, 1, 6))
        outputs, _ = cell(torch.randn(4, 7, 5), (h0.expand(1, 4, 6), c0.expand(lanes, 4, 6)))
        outputs.sum().backward()
        assert h0.grad.abs().sum() > 0
        assert c0.grad.abs().sum() > 0

    def test_wrong_shapes_are_refused_by_name_with_both_shapes(self, cell, lanes):
        """ValueError says which tensor, the shape needed and the shape given."""
        x, h, c = draw(cell)
        with pytest.raises(ValueError, match=r"x must be \(batch, steps, 5\), got \[4, 7, 6\]"):
            cell(torch.zeros(4, 7, 6))
        with pytest.raises(ValueError, match=r"x must be .* got \[4, 5\]"):
            cell(torch.zeros(4, 5))
        with pytest.raises(ValueError, match=r"hidden must be \[1, 4, 6\], got \[4, 6\]"):
            cell(x, (h[0], c))
        with pytest.raises(ValueError, match=rf"state must be \[{lanes}, 4, 6\], got \[{lanes + 1}, 4, 6\]"):
            cell(x, (h, torch.zeros(lanes + 1, 4, 6)))
        with pytest.raises(ValueError, match=r"hidden must be \[1, 4, 6\], got \[1, 1, 6\]"):
            cell(x, (h[:, :1], c))

    def test_wrong_sizes_are_refused_by_name(self, name):
        """Sizes below 1 raise ValueError."""
        with pytest.raises(ValueError, match="hidden_size must be an integer of at least 1, got 0"):
            make_cell(name, 5, 0, k=2)


@pytest.mark.parametrize("name", ["lstm"], indirect=True)
class TestLanes:
    """What holds for one lane or many."""

    def test_one_lane_is_torchs_lstm(self):
        """With k = 1 and the gates reordered (i, f, g, o -> f, i, o, g), nn.LSTM gives outputs and states."""
        torch_lstm = nn.LSTM(5, 6, batch_first=True).double()

        def reorder(tensor):
            i, f, g, o = tensor.chunk(4)
            return torch.cat([f, i, o, g])

        weights = {
            "i2h.weight": reorder(torch_lstm.weight_ih_l0),
            "i2h.bias": reorder(torch_lstm.bias_ih_l0),
            "h2h.weight": reorder(torch_lstm.weight_hh_l0),
            "h2h.bias": reorder(torch_lstm.bias_hh_l0),
        }
        for cell in (arraylstm.LSTM(5, 6), arraylstm.ArrayLSTM(5, 6, 1), arraylstm.StochasticArrayLSTM(5, 6, 1).eval()):
            cell.double().load_state_dict(weights)
            x, h, c = draw(cell, dtype=torch.float64)
            expected, state = torch_lstm(x, (h, c))
            outputs, last = cell(x, (h, c))
            torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(last, state, rtol=0, atol=1e-12)

    def test_the_hidden_state_is_bounded_by_the_number_of_lanes(self):
        """h is a sum over k lanes: with every gate open it approaches k."""
        cell = arraylstm.ArrayLSTM(1, 2, 3)
        for parameter in cell.parameters():
            nn.init.constant_(parameter, 0.0)
        nn.init.constant_(cell.i2h.bias, 20.0)
        outputs, _ = cell(torch.zeros(1, 50, 1))
        torch.testing.assert_close(outputs[0, -1], torch.full((2,), 3.0))


@pytest.mark.parametrize("name", ["stochastic"], indirect=True)
class TestStochasticPooling:
    """The sampling law of StochasticArrayLSTM."""

    def test_training_draws_lanes_with_the_softmax_of_the_gates(self):
        """Over 40,000 draws the share of each lane is softmax(o) within five standard errors."""
        draws = 40_000
        cell = arraylstm.StochasticArrayLSTM(1, 1, 3).train()
        o = torch.tensor([0.1, 0.9, 0.5])[:, None, None].expand(3, 1, draws)
        c = torch.tensor([0.3, 0.6, 0.9])[:, None, None].expand(3, 1, draws)
        hidden = cell.update_hidden(o, c)
        for lane, p in enumerate(o[:, 0, 0].softmax(0).tolist()):
            share = torch.isclose(hidden, (o * c.tanh())[lane, 0, 0]).double().mean().item()
            assert abs(share - p) < 5 * (p * (1 - p) / draws) ** 0.5

    def test_evaluation_takes_the_first_of_lanes_whose_softmax_ties(self):
        """Gates that differ by less than softmax resolves count as equal, and the first of them answers."""
        cell = arraylstm.StochasticArrayLSTM(1, 1, 2).eval()
        low = torch.tensor(0.1)
        o = torch.stack([low, low.nextafter(torch.tensor(1.0))])[:, None, None]
        assert o[0] < o[1]
        assert o.softmax(0)[0] == o.softmax(0)[1]
        c = torch.tensor([0.2, 0.8])[:, None, None]
        torch.testing.assert_close(cell.update_hidden(o, c)[0], o[0] * c[0].tanh())

    def test_the_gradient_flows_through_the_chosen_lane_only(self):
        """The lanes not chosen receive a gradient of zero."""
        cell = arraylstm.StochasticArrayLSTM(1, 1, 2).eval()
        o = torch.tensor([0.2, 0.9])[:, None, None].requires_grad_()
        c = torch.tensor([0.5, 0.5])[:, None, None].requires_grad_()
        cell.update_hidden(o, c).sum().backward()
        assert o.grad.flatten()[0] == c.grad.flatten()[0] == 0
        assert o.grad.flatten()[1] > 0


@pytest.mark.parametrize("name", ["stochastic"], indirect=True)
class TestForgottenEval:
    """What a program written for array-lstm, whose answers never vary, hears if it does not call eval()."""

    @pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
    def test_drawing_without_gradients_warns_once_a_layer(self, cell, off):
        """Every answer after the first is as random, and one warning is enough."""
        x = torch.randn(3, 2, 7, 5)
        with off(), pytest.warns(UserWarning, match=r"draws its lanes at random.*call eval\(\)") as caught:
            [*map(cell.train(), x)]
        assert len(caught) == 1

    def test_a_model_says_so_too(self, cell):
        """The layer may be anywhere inside."""
        model = arraylstm.NextItemModel("stochastic", 5, 4).train()
        with torch.no_grad(), pytest.warns(UserWarning, match="call eval"):
            model(torch.tensor([[1, 2]]))

    def test_training_evaluation_and_scripts_stay_silent(self, cell, recwarn):
        """With gradients a draw is what is wanted, in eval() nothing is drawn, and a script has no such check."""
        x = torch.randn(2, 7, 5)
        cell.train()(x)
        with torch.no_grad():
            cell.eval()(x)
            scripted = torch.jit.script(cell.train())
            first, second = scripted(x)[0], scripted(x)[0]
        assert not torch.equal(first, second)
        assert [str(warning.message) for warning in recwarn if "eval()" in str(warning.message)] == []


@pytest.mark.parametrize("name", ["array"], indirect=True)
class TestOverriding:
    """Subclasses that override the documented methods."""

    def test_an_overridden_update_hidden_is_used_everywhere(self):
        """Averaging instead of summing divides the first output by k, eager and scripted."""

        class Mean(arraylstm.ArrayLSTM):
            def update_hidden(self, outputs: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
                return (outputs * states.tanh()).mean(0, keepdim=True)

        mean, plain = Mean(5, 6, 3), arraylstm.ArrayLSTM(5, 6, 3)
        mean.load_state_dict(plain.state_dict())
        x = torch.randn(4, 1, 5)
        torch.testing.assert_close(3 * mean(x)[0], plain(x)[0])
        torch.testing.assert_close(torch.jit.script(mean)(x), mean(x))

    def test_an_overridden_forward_cell_is_stepped_through(self):
        """forward follows a subclass's own forward_cell, which may call its parent's and write to its arguments."""

        class Decaying(arraylstm.ArrayLSTM):
            def forward_cell(self, x, hidden, state):
                state *= 0.5
                return super().forward_cell(x, hidden, state)

        decaying, plain = Decaying(5, 6, 3), arraylstm.ArrayLSTM(5, 6, 3)
        decaying.load_state_dict(plain.state_dict())
        x, h, c = draw(plain, steps=1)
        before = c.clone()
        torch.testing.assert_close(decaying(x, (h, c)), plain(x, (h, 0.5 * c)))
        assert torch.equal(c, before)

    @pytest.mark.parametrize("where", ["subclass", "mixin"])
    def test_an_overridden_forward_cell_scripts(self, where):
        """A forward_cell of one's own, stated in the class or mixed in, is what the scripted layer runs."""

        stated = {"forward_cell": Clip.forward_cell} if where == "subclass" else {}
        bases = (arraylstm.ArrayLSTM,) if where == "subclass" else (Clip, arraylstm.ArrayLSTM)
        cell = type("Clipped", bases, stated)(5, 6, 3)
        x = torch.randn(4, 7, 5)
        outputs, _ = cell(x)
        assert outputs.abs().max() <= 0.01
        torch.testing.assert_close(torch.jit.script(cell)(x)[0], outputs)

    @pytest.mark.parametrize("method", ["forward", "initHidden"])
    def test_overrides_that_a_model_would_not_call_are_refused_in_a_registered_cell(self, method, monkeypatch):
        """A model hands states on itself, from zeros; it says so instead of ignoring the method."""
        cell = type("Own", (arraylstm.ArrayLSTM,), {method: lambda self, *arguments: None})
        monkeypatch.setitem(CELLS, "own", cell)
        with pytest.raises(ValueError, match=f"cell 'own' overrides {method}, which a model does not call"):
            make_cell("own", 5, 6, k=3)

    def test_an_overridden_init_hidden_starts_every_sequence(self):
        """forward without a state asks initHidden."""

        class Ones(arraylstm.ArrayLSTM):
            def initHidden(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N802
                return x.new_ones(1, x.size(0), 6), x.new_ones(3, x.size(0), 6)

        cell = Ones(5, 6, 3)
        x = torch.randn(4, 7, 5)
        torch.testing.assert_close(cell(x), cell(x, (torch.ones(1, 4, 6), torch.ones(3, 4, 6))))


@pytest.mark.parametrize("name", ["array"], indirect=True)
def test_an_unknown_cell_is_refused_with_the_known_names():
    """make_cell names what it got and what there is."""
    with pytest.raises(ValueError, match="unknown cell 'gru'; known cells: lstm, array"):
        make_cell("gru", 5, 6, k=2)
