"""How a model is run while it learns."""

import pytest
import torch

from arraylstm import CELLS, NextItemModel
from arraylstm.training import TrainingOptions, fit
from arraylstm.training.batches import Batches
from arraylstm.training.forward import Forward

SESSIONS = [[0, 1, 2, 3, 4, 0, 1], [2, 3], [4, 4, 1, 0]]


@pytest.mark.parametrize("cell", ["lstm", "array"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_pieces_give_the_outputs_of_whole_sessions(cell, steps):
    """The state is carried from one to the next, through torch's kernel for LSTMs as through any cell's step."""
    torch.manual_seed(0)
    model = NextItemModel(cell, 5, 4, k=2, num_layers=2, embedding_size=3).eval().double()
    forward, found = Forward(model.requires_grad_(False)), []
    for piece in Batches(SESSIONS, -1, 8, 100, steps).in_order():
        piece = piece.to(forward.device)
        h = forward.outputs(piece.items, piece.begins).flatten(0, 1)[piece.places]
        found += (
            model.score(h, piece.items.flatten()[piece.places]).gather(1, piece.targets[:, None]).flatten().tolist()
        )
    expected = [
        float(model(torch.tensor([session]))[0][0, at, target])
        for session in SESSIONS
        for at, target in enumerate(session[1:])
    ]
    assert sorted(found) == pytest.approx(sorted(expected), rel=1e-12)


def test_torchs_kernel_gives_the_gradients_of_the_steps():
    """To every weight, through two layers."""
    torch.manual_seed(0)
    model = NextItemModel("lstm", 5, 4, num_layers=2, embedding_size=3).double()
    items = torch.tensor([[0, 1, 2], [4, 4, 1]])
    gradients = []
    for h in (Forward(model).outputs(items, True), model.layers.unroll(model.embed(items), model.initial_state(2))[0]):
        gradients.append(torch.autograd.grad(h.square().sum(), [*model.cells.parameters(), model.embedding.weight]))
    for fused, stepped in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, stepped)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns_in_bf16(cell):
    """Weights stay float32, and what is learned is much the same."""
    weights = []
    for precision in ("float32", "bf16"):
        torch.manual_seed(0)
        model = NextItemModel(cell, 5, 4, k=2, embedding_size=3)
        fit(model, SESSIONS, SESSIONS, TrainingOptions(epochs=1, precision=precision))
        weights.append(model.linear.weight)
    assert weights[1].dtype == torch.float32
    torch.testing.assert_close(weights[0], weights[1], atol=0.02, rtol=0)


def test_steps_are_compiled_for_the_fit_alone(monkeypatch):
    """Afterwards the cells are as they were; a model of LSTMs has a kernel and needs no compiler."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    for cell, count in (("lstm", 0), ("array", 2)):
        model = NextItemModel(cell, 5, 4, k=2, num_layers=2)
        fit(model, SESSIONS, SESSIONS, TrainingOptions(epochs=1, compile=True))
        assert len(compiled) == count
        assert all("step_with_diagnostics" not in vars(each) for each in model.cells.values())


def test_a_compiler_that_is_missing_is_a_sentence(monkeypatch):
    """Before anything is learned."""

    def fail(*_):
        raise FileNotFoundError("no g++")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(ValueError, match="compile does not work here, leave it out: no g"):
        fit(NextItemModel("array", 5, 4), SESSIONS, SESSIONS, TrainingOptions(epochs=1, compile=True))
