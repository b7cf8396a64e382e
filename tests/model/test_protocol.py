"""The cell protocol: what every row of the registry promises, and that a new row is all it takes to add a cell."""

import pytest
import torch
from torch import Tensor, nn

import arraylstm
import arraylstm_export
from arraylstm import CELLS, Cell, NextItemModel
from arraylstm.cells import make_cell


class Toy(Cell):
    """h' = tanh(W x + U h + n), with a scalar that counts, n' = n / 2 + 1, and a state of three dimensions."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"count": (), "memory": (2, self.hidden_size, 3), "seen": (self.input_size,)}

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        count, memory, _ = state
        h = torch.tanh(self.i2h(projected) + self.h2h(memory.sum(3).mean(1)) + count.unsqueeze(1))
        memory = self.scale * memory + h.unsqueeze(1).unsqueeze(3)
        return h, [count / 2 + 1, memory, projected]


@pytest.fixture(params=[*CELLS, "toy"])
def name(request, monkeypatch):
    monkeypatch.setitem(CELLS, "toy", Toy)
    torch.manual_seed(5)
    return request.param


@pytest.fixture
def cell(name):
    return make_cell(name, 5, 6, k=3).eval()


def draw(cell, batch=4, steps=7):
    x = torch.randn(batch, steps, cell.input_size)
    return x, [torch.randn(batch, *shape) for shape in cell.state_shapes().values()]


def test_steps_give_what_unrolling_gives(cell):
    """One step after the other over projected inputs is the unrolled sequence."""
    x, state = draw(cell)
    outputs, last = cell.unroll(x, state)
    for t in range(x.size(1)):
        output, state = cell.step(cell.project(x[:, t]), state)
        torch.testing.assert_close(output, outputs[:, t])
    torch.testing.assert_close(state, last)


def test_rows_are_independent_and_states_untouched(cell):
    """A row alone gives what it gives in a batch, and no state that was handed in is written to."""
    x, state = draw(cell)
    copies = [tensor.clone() for tensor in state]
    outputs, last = cell.unroll(x, state)
    alone, alone_last = cell.unroll(x[2:3], [tensor[2:3] for tensor in state])
    torch.testing.assert_close(alone, outputs[2:3])
    torch.testing.assert_close(alone_last, [tensor[2:3] for tensor in last])
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(state, copies, strict=True))


def test_a_stack_of_it_learns_scripts_and_has_a_gradient_everywhere(name):
    """Two layers of other widths script to the same numbers, and every weight has a gradient."""
    model = NextItemModel(name, 7, 6, k=3, num_layers=2, embedding_size=4).eval()
    items = torch.randint(0, 7, (3, 5))
    torch.testing.assert_close(torch.jit.script(model)(items), model(items))
    model(items)[0].square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_a_new_row_of_the_registry_exports_proven(monkeypatch, tmp_path):
    """A cell that was never seen before, with scalar and three-dimensional states, passes parity in every form."""
    monkeypatch.setitem(CELLS, "toy", Toy)
    torch.manual_seed(5)
    model = NextItemModel("toy", 7, 6, num_layers=2, embedding_size=4, vocabulary=arraylstm.Vocabulary([*"abcdefg"]))
    assert arraylstm_export.export(model, tmp_path / "bundle").passed
