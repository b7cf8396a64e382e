"""ArrayLSTM: k memory cells a unit that share one hidden state (Rocki 2016, section 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from arraylstm.cells.base import Cell, require_input, require_positive

_READERS_OF_ROWS = ("project", "step", "forward_cell", "recur", "drive", "affine", "gates")


class ArrayLSTM(Cell):
    r"""Array-LSTM layer, batch first, with the interface and weights of array-lstm 0.0.1.

    For every lane j, all reading the same h (equations 3.7 to 3.12 of arXiv 1607.03085v2):

        f_j, i_j, o_j = sigmoid(W_j x + U_j h + b_j)
        g_j           = tanh(W_j x + U_j h + b_j)
        c_j'          = f_j * c_j + i_j * g_j
        h'            = sum_j o_j * tanh(c_j')

    Row `lane * 4H + gate * H + unit` of `i2h` and `h2h` belongs to that lane, gate (f, i, o, g) and unit.

    A subclass may override `update_hidden`, or `forward_cell` as a whole; `forward`, export and serving then follow it.

    Args:
        input_size: I.
        hidden_size: H.
        k: number of lanes.

    Raises:
        ValueError: a size is smaller than 1.
    """

    k: int
    gate_major: bool
    forward_cell_is_overridden: bool
    update_hidden_is_overridden: bool

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size)
        require_positive("k", k)
        self.k = k
        self.gate_major = False
        self.forward_cell_is_overridden = type(self).forward_cell is not ArrayLSTM.forward_cell
        self.update_hidden_is_overridden = type(self).update_hidden is not ArrayLSTM.update_hidden
        self.i2h = nn.Linear(input_size, 4 * hidden_size * k)
        self.h2h = nn.Linear(hidden_size, 4 * hidden_size * k)

    # -- the cell protocol: batch axis first ---------------------------------------------------------------

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return h (H) and c (k, H)."""
        return {"h": (self.hidden_size,), "c": (self.k, self.hidden_size)}

    def project(self, x: Tensor) -> Tensor:
        """Return the input's part of the recurrence for any number of steps; see `drive`."""
        return x if self.forward_cell_is_overridden else self.drive(x)

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Advance h (B, H) and c (B, k, H) by one step; the output is the new h."""
        if self.forward_cell_is_overridden:  # it takes the input as it is, and may write to its arguments
            hidden, cells = self.forward_cell(
                projected, state[0].unsqueeze(0).clone(), state[1].transpose(0, 1).contiguous().clone()
            )
            return hidden[0], [hidden[0], cells.transpose(0, 1)]
        h, c = self.recur(projected, state[0], state[1])
        return h, [h, c]

    @torch.no_grad()
    def prepare(self) -> None:
        """Order the rows of `i2h` and `h2h` by gate, lane and unit: all f, all i, all o, all g.

        Nothing is done where a subclass may read the rows in the documented order, or does not hold them as they are.
        """
        readers = (getattr(type(self), name).__module__ for name in _READERS_OF_ROWS)
        known = all(module.startswith(__package__) for module in readers)
        if self.gate_major or not known or is_parametrized(self.i2h) or is_parametrized(self.h2h):
            return
        for linear in (self.i2h, self.h2h):
            for name, weight in list(linear.named_parameters(recurse=False)):
                by_lane = weight.view(self.k, 4, self.hidden_size, -1)
                by_gate = by_lane.transpose(0, 1).reshape(weight.shape)
                setattr(linear, name, nn.Parameter(by_gate, weight.requires_grad))
        self.gate_major = True

    # -- the mathematics -----------------------------------------------------------------------------------

    def drive(self, x: Tensor) -> Tensor:
        """Return what the input contributes to a step: (..., I) -> (..., 4Hk); a cell may add to it."""
        return self.affine(x)

    def affine(self, x: Tensor) -> Tensor:
        """Return W x + b with both biases merged: (..., I) -> (..., 4Hk)."""
        return F.linear(x, self.i2h.weight, self.i2h.bias + self.h2h.bias)

    def gates(self, driven: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return f, i, o and g, each (B, k, H), from W x + b (B, 4Hk) and h (B, H)."""
        a = torch.addmm(driven, h, self.h2h.weight.t())
        if self.gate_major:
            a_fio, a_g = torch.split(a.view(h.size(0), 4 * self.k, self.hidden_size), [3 * self.k, self.k], 1)
            f, i, o = a_fio.sigmoid().chunk(3, 1)
            return f, i, o, a_g.tanh()
        f, i, o, g = a.view(h.size(0), self.k, 4 * self.hidden_size).chunk(4, 2)
        return f.sigmoid(), i.sigmoid(), o.sigmoid(), g.tanh()

    def recur(self, driven: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return h' (B, H) and c' (B, k, H) from W x + b (B, 4Hk), h (B, H) and c (B, k, H)."""
        f, i, o, g = self.gates(driven, h)  # (3.7-3.10)
        c = f * c + i * g  # (3.11)
        return self.pool(o, c), c  # (3.12)

    def pool(self, o: Tensor, c: Tensor) -> Tensor:
        """Return h' (B, H) from o and c', both (B, k, H), through `update_hidden` where a subclass has its own."""
        if self.update_hidden_is_overridden:
            return self.update_hidden(o.transpose(0, 1), c.transpose(0, 1)).squeeze(0)
        return self.pool_lanes(o, c, 1)

    def pool_lanes(self, o: Tensor, c: Tensor, lanes: int) -> Tensor:
        """Return h' from o and c' of one shape, without their axis `lanes`."""
        return (o * c.tanh()).sum(lanes)

    # -- the interface of array-lstm 0.0.1: lane axis first -----------------------------------------------------

    def forward(
        self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            hidden: (h (1, B, H), c (k, B, H)) to start from, never written to; None starts from `initHidden(x)`.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            outputs (B, S, H), zero from a row's length on, and (h (1, B, H), c (k, B, H)) after its last step.

        Raises:
            ValueError: x, h, c or lengths has another shape, or a length lies outside 0 to S.
        """
        require_input(x, self.input_size, lengths)
        h, c = self.initHidden(x) if hidden is None else hidden
        if list(h.shape) != [1, x.size(0), self.hidden_size]:
            raise ValueError(f"hidden must be {[1, x.size(0), self.hidden_size]}, got {list(h.shape)}")
        if list(c.shape) != [self.k, x.size(0), self.hidden_size]:
            raise ValueError(f"state must be {[self.k, x.size(0), self.hidden_size]}, got {list(c.shape)}")
        outputs, state = self.unroll(x, [h[0], c.transpose(0, 1)], lengths)
        return outputs, (state[0].unsqueeze(0), state[1].transpose(0, 1).contiguous())

    def forward_cell(self, x: Tensor, hidden: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one step: x (B, I), hidden (1, B, H), state (k, B, H) -> (hidden, state) of the same shapes."""
        h, c = self.recur(self.drive(x), hidden[0], state.transpose(0, 1))
        return h.unsqueeze(0), c.transpose(0, 1)

    def update_hidden(self, outputs: Tensor, states: Tensor) -> Tensor:
        """Pool the lanes: output gates and new cells, both (k, B, H), to the new hidden (1, B, H)."""
        return self.pool_lanes(outputs, states, 0).unsqueeze(0)

    def initHidden(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N802 - the documented name
        """Return the zero state (1, B, H), (k, B, H) for inputs x (B, S, I), in x's dtype and on its device."""
        return (
            x.new_zeros(1, x.size(0), self.hidden_size),
            x.new_zeros(self.k, x.size(0), self.hidden_size),
        )

    def extra_repr(self) -> str:
        """Show the sizes in `print(layer)`."""
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}, k={self.k}"
