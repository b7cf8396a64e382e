"""The order of an Array-LSTM's rows: by lane as array-lstm stores them, or by gate, which makes the faster step."""

from inspect import isfunction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from arraylstm.cells.base import Cell

_READ_NO_ROWS = {"__init__", "forward", "initHidden", "update_hidden", "pool", "extra_repr"}
"""Methods that no row of the weights reaches except as finished gates."""


class RowsByLane(Cell):
    """A cell whose weights `i2h` and `h2h` have rows by lane, gate (f, i, o, g) and unit: 4Hk of them.

    `prepare` may reorder the rows only if every reader knows of it, and `activate` is the one reader that does. So each
    class that has methods of its own must say that they leave reading to `activate`:

        class Mine(ArrayLSTM, activate_alone_reads_rows=True): ...

    The promise is not inherited. A class that has not made it keeps the documented order, except if all that it
    overrides are methods that see no rows, such as `update_hidden`.
    """

    rows_may_move: ClassVar[bool] = True

    k: int
    gate_major: bool

    def __init_subclass__(cls, activate_alone_reads_rows: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = (base for base in cls.__mro__[1:] if base not in RowsByLane.__mro__)
        unknown = any(not issubclass(base, RowsByLane) and _may_read_rows(base) for base in bases)
        inherited = all(base.rows_may_move for base in cls.__bases__ if issubclass(base, RowsByLane))
        own = activate_alone_reads_rows or not _may_read_rows(cls)
        cls.rows_may_move = own and inherited and not unknown

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size)
        self.k = k
        self.gate_major = False

    def activate(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return f, i, o = sigmoid(a) and g = tanh(a), each (B, k, H), from a (B, 4Hk) in the order of the rows."""
        if self.gate_major:
            a_fio, a_g = torch.split(a.view(a.size(0), 4 * self.k, self.hidden_size), [3 * self.k, self.k], 1)
            f, i, o = a_fio.sigmoid().chunk(3, 1)
            return f, i, o, a_g.tanh()
        f, i, o, g = a.view(a.size(0), self.k, 4 * self.hidden_size).chunk(4, 2)
        return f.sigmoid(), i.sigmoid(), o.sigmoid(), g.tanh()

    @torch.no_grad()
    def prepare(self) -> None:
        """Order the rows of `i2h` and `h2h` by gate, lane and unit: all f, all i, all o, all g.

        Nothing is done where a subclass may read the rows in the documented order, or computes them from other weights.
        """
        linears = [linear for linear in (self.i2h, self.h2h) if isinstance(linear, nn.Linear)]
        if self.gate_major or not self.rows_may_move or any(map(is_parametrized, linears)):
            return
        for linear in linears:
            for name, weight in list(linear.named_parameters(recurse=False)):
                by_lane = weight.view(self.k, 4, self.hidden_size, -1)
                by_gate = by_lane.transpose(0, 1).reshape(weight.shape)
                setattr(linear, name, nn.Parameter(by_gate, weight.requires_grad))
        self.gate_major = True


def _may_read_rows(owner: type) -> bool:
    """Return whether a class has methods of its own that could read rows of the weights."""
    methods = {name for name, value in vars(owner).items() if isfunction(value) or isinstance(value, property)}
    return not methods <= _READ_NO_ROWS
