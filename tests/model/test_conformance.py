"""What a new cell may get wrong: each mistake is named when the cell is first made from the registry."""

import random

import pytest
import torch
from torch import Tensor, nn

import arraylstm
from arraylstm import CELLS, ArrayLSTM, NextItemModel
from arraylstm.cells import make_cell

from ..devices import draws_nothing
from ..toy import Toy


class Plain(arraylstm.Cell):
    """h' = tanh(W x + U h): a cell without a mistake, of the least that a cell states."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.hidden_size,)}

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h = torch.tanh(self.i2h(projected) + self.h2h(state[0]))
        return h, [h]


class Unannotated(Plain):
    def step(self, projected, state):
        return Plain.step(self, projected, state)


class UnannotatedHelper(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.helper(projected, state)

    def helper(self, projected: Tensor, state) -> tuple[Tensor, list[Tensor]]:
        return Plain.step(self, projected, state)


class Expanding(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, _ = Plain.step(self, projected, state)
        h = h + self.i2h.bias.unsqueeze(0).expand(h.size(0), -1)
        return h, [h]


class Filling(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, _ = Plain.step(self, projected, state)
        return h, [h + h.new_zeros(h.size(0), 1)]


class Repeating(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, _ = Plain.step(self, projected, state)
        h = h + self.i2h.bias.unsqueeze(0).repeat(h.size(0), 1)
        return h, [h]


class DrawingElsewhere(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, following = Plain.step(self, projected, state)
        return h + random.random(), following


class Drawing(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, following = Plain.step(self, projected, state)
        return h + torch.rand_like(h), following


class Writing(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, following = Plain.step(self, projected, state)
        state[0].mul_(0.5)
        return h, following


class Mixing(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, _ = Plain.step(self, projected, state)
        return h, [h - h.mean(0)]


class Single(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, following = Plain.step(self, projected, state)
        return h, [following[0].float()]


class Forgetful(Plain):
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.hidden_size,), "c": (self.hidden_size,)}


class Wide(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, following = Plain.step(self, projected, state)
        return torch.cat([h, h], 1), following


class Failing(Plain):
    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return projected, [state[1]]


class Stateless(Plain):
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {}


class Undeclared(Plain):
    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size)


class Declared(Plain):
    has_lanes = True


class Contradicting(Plain):
    def step_with_diagnostics(
        self, projected: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        h, following = self.step(projected, state)
        return 2 * h, following, torch.jit.annotate(list[Tensor], [])


class Stepless(arraylstm.Cell):
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.hidden_size,)}


MISTAKES = {
    nn.GRUCell: r"must be a subclass of arraylstm.Cell, got <class '.*GRUCell'>",
    Stepless: "has no step",
    Stateless: "the cell Stateless names no state; `state_shapes` must give one at least",
    Undeclared: "must be constructed from input_size and hidden_size, as has_lanes is False: .*'k'",
    Declared: "must be constructed from input_size, hidden_size and k, as has_lanes is True: too many positional",
    Unannotated: "has no annotation for projected in Unannotated.step, which a script then takes for a Tensor",
    UnannotatedHelper: "has no annotation for state in UnannotatedHelper.helper",
    Failing: r"fails in a step, in eval\(\) and float64: IndexError: list index out of range",
    Forgetful: "must give output, next state h, next state c: 3 tensors, got 2",
    Wide: r"must give output the shape \['B', 6\], got \['B', 12\]",
    Contradicting: "gives one output from step and another from step_with_diagnostics",
    Single: "gives next state h in torch.float32 where input and weights are torch.float64",
    Expanding: "calls expand for the batch's size in a step; give the tensor one row and let it broadcast",
    Filling: "calls new_zeros for the batch's size in a step",
    Repeating: "calls repeat for the batch's size in a step; give the tensor one row and let it broadcast",
    DrawingElsewhere: r"draws random numbers in eval\(\); an answer must follow from the items alone",
    Drawing: r"draws random numbers in eval\(\); an answer must follow from the items alone",
    Writing: "writes to the input or state that a step is given; make new tensors",
    Mixing: "gives a row another next state h beside other rows than alone; rows must not mix",
}


@pytest.mark.parametrize("cell", MISTAKES, ids=lambda cell: cell.__name__)
def test_a_mistake_is_named_when_the_cell_is_first_made(cell, monkeypatch):
    """The message has the registry's name, what is wrong and what is wanted; every later try gets it too."""
    monkeypatch.setitem(CELLS, "new", cell)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^cell 'new' {MISTAKES[cell]}"):
            NextItemModel("new", 7, 4, k=2)


@pytest.mark.parametrize("cell", [Plain, Toy])
def test_one_file_and_one_row_add_a_cell(cell, monkeypatch):
    """A class without these mistakes makes models, which learn, script and answer step by step."""
    monkeypatch.setitem(CELLS, "new", cell)
    model = NextItemModel("new", 7, 4, k=2, num_layers=2).eval()
    items = torch.randint(0, 7, (3, 5))
    logits, state = model(items), None
    torch.testing.assert_close(torch.jit.script(model)(items), logits)
    for t in range(5):
        scores, state = model.step(items[:, t], state)
        torch.testing.assert_close(scores, logits[0][:, t])
    logits[0].square().sum().backward()
    assert all(weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("name", CELLS)
def test_every_public_class_is_the_packages(name):
    """`arraylstm` has the class of every row under its name, though no other line names it."""
    assert CELLS[name] is Toy or getattr(arraylstm, CELLS[name].__name__) is CELLS[name]


def test_checking_disturbs_nothing(monkeypatch):
    """The first cell of a class is drawn like any other: the check leaves the random generator as it was."""
    monkeypatch.setitem(CELLS, "new", type("Own", (ArrayLSTM,), {}))
    torch.manual_seed(3)
    expected = ArrayLSTM(5, 4, 2).state_dict()
    torch.manual_seed(3)
    torch.testing.assert_close(make_cell("new", 5, 4, 2).state_dict(), expected, rtol=0, atol=0)
    monkeypatch.setitem(CELLS, "new", type("Own", (ArrayLSTM,), {}))
    with draws_nothing(), torch.device("meta"):
        assert make_cell("new", 5, 4, 2).i2h.weight.is_meta
