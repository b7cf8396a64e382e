"""A cell that the package has never seen: this file and a row of `CELLS` (see conftest.py) are all that adds it.

`tests/model/test_conformance.py` has cells with a mistake each, and the message that each gets.
"""

import torch
from torch import Tensor, nn

from arraylstm import Cell


class Toy(Cell):
    """h' = tanh(W x + U m + n), where n counts the steps, n' = n / 2 + 1, and m is a memory of three dimensions.

    States of no, three and one dimension; a diagnostic; a parameter of no dimension; work in `project`.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size)
        self.scale = nn.Parameter(torch.tensor(0.25))

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"count": (), "memory": (2, self.hidden_size, 3), "seen": (self.hidden_size,)}

    def diagnostic_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"decay": (2, 1)}

    def project(self, x: Tensor) -> Tensor:
        return self.i2h(x)

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        count, memory, _ = state
        h = torch.tanh(projected + self.h2h(memory.sum(3).mean(1)) + count.unsqueeze(1))
        memory = self.scale * memory + h.unsqueeze(1).unsqueeze(3)
        return h, [count / 2 + 1, memory, projected]

    def step_with_diagnostics(
        self, projected: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        h, following = self.step(projected, state)
        return h, following, [self.scale * following[1].mean([2, 3]).unsqueeze(2)]
