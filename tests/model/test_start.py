"""The state that sequences start from: zeros, or learned."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import arraylstm
from arraylstm import CELLS, NextItemModel
from arraylstm.cells import make_cell
from arraylstm.training import TrainingOptions, evaluate, fit

from ..toy import Toy


def started(cell="array", **arguments):
    """Return a model that starts from random numbers, and these by the names of its states, for one row."""
    torch.manual_seed(4)
    model = NextItemModel(cell, 5, 6, k=3, num_layers=2, learned_start=True, **arguments).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "start" in name or name.endswith("_0"):
                weight.normal_()
    return model


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_can_learn_its_start(cell, tmp_path):
    """Every row starts from the parameters: in sequences, steps and scripts, saved and loaded; they get gradients."""
    model = started(cell)
    start = model.initial_state(3)
    assert [list(tensor.shape[1:]) for tensor in start] == model.state_shapes
    assert all(tensor.any() for tensor in start)
    items = torch.randint(0, 5, (3, 4), generator=torch.Generator().manual_seed(1))
    logits, _ = model(items)
    torch.testing.assert_close(logits, model(items, start)[0], rtol=0, atol=0)
    torch.testing.assert_close(logits[:, 0], model.step(items[:, 0])[0])
    torch.testing.assert_close(torch.jit.script(model)(items)[0], logits)
    assert not torch.allclose(logits[:, 0], model.step(items[:, 0], [torch.zeros_like(t) for t in start])[0])
    arraylstm.save(model, tmp_path / "model.pt")
    torch.testing.assert_close(arraylstm.load(tmp_path / "model.pt")(items)[0], logits, rtol=0, atol=0)
    logits.sum().backward()
    starts = [weight for name, weight in model.named_parameters() if "start" in name or name.endswith("_0")]
    assert len(starts) == len(model.state_names)
    assert any(weight.grad is not None and weight.grad.any() for weight in starts)


def test_a_model_that_starts_from_zeros_is_the_same_file_as_ever():
    """Neither its configuration nor its weights say anything of a start."""
    model = NextItemModel("array", 5, 6)
    assert "learned_start" not in model.config
    assert not [name for name in model.state_dict() if "start" in name]


@pytest.mark.parametrize("bptt", [2, 128])
def test_training_learns_the_start(bptt):
    """The first step of a session teaches it, whether or not the session is cut."""
    torch.manual_seed(0)
    model = NextItemModel("lstm", 5, 8, embedding_size=4, learned_start=True)
    sessions = [[2, 0, 1, 2, 3]] * 8
    fit(model, sessions, sessions, TrainingOptions(epochs=1, batch_size=4, bptt=bptt))
    assert all(tensor.any() for tensor in model.initial_state(1))


def test_figures_are_those_from_the_learned_start():
    """`evaluate` starts every session there."""
    model, session = started("lstm"), [3, 1, 4, 1]
    logits, _ = model(torch.tensor([session]), model.initial_state(1))
    nats = F.cross_entropy(logits[0, :-1], torch.tensor(session[1:])).item()
    assert evaluate(model, [session]).loss == pytest.approx(nats)


class FromOnes(Toy):
    """Starts from ones, which it gives by itself."""

    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        return [like.new_ones([batch] + sizes) for sizes in self.state_sizes]


class EachItsOwn(Toy):
    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        return [torch.rand([batch] + sizes, dtype=like.dtype) for sizes in self.state_sizes]


class Narrow(Toy):
    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        return [like.new_zeros([batch] + sizes) for sizes in self.state_sizes[:2]]


class Broken(Toy):
    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        return [nn.Parameter(torch.zeros(batch)).missing]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (EachItsOwn, "gives rows or calls another initial_state each; every session must start alike"),
        (Narrow, r"must give an initial_state of \[\['B'\], .*, got \[\[11\], \[11, 2, 6, 3\]\]"),
        (Broken, "fails in initial_state: AttributeError"),
    ],
)
def test_a_cell_whose_sessions_do_not_start_alike_is_refused(cell, message, monkeypatch):
    """When it is first made, as with every other rule of a cell."""
    monkeypatch.setitem(CELLS, "odd", cell)
    with pytest.raises(ValueError, match=f"cell 'odd' {message}"):
        make_cell("odd", 5, 6, k=3)


def test_a_cell_with_a_start_of_its_own_is_taken_but_learns_none(monkeypatch):
    """Parameters that its initial_state does not read would train nothing."""
    monkeypatch.setitem(CELLS, "ones", FromOnes)
    model = NextItemModel("ones", 5, 6)
    assert all(tensor.eq(1).all() for tensor in model.initial_state(2))
    with pytest.raises(ValueError, match="cell FromOnes gives an initial_state of its own; it needs a learn_start"):
        NextItemModel("ones", 5, 6, learned_start=True)


def test_torch_has_no_learned_start():
    """A layer that has one is not turned into an nn.LSTM that would start from zeros."""
    model = started("lstm")
    with pytest.raises(ValueError, match="to_torch takes layers that start from zeros"):
        arraylstm.to_torch(model.cells)


def test_the_command_line_has_it():
    """--learned-start is an option of the model."""
    from arraylstm.cli import ModelOptions

    chosen, plain = (options.settled(5)[0] for options in (ModelOptions(learned_start=True), ModelOptions()))
    assert chosen.make(5).config["learned_start"] is True
    assert "learned_start" not in plain.make(5).config
