"""ArrayLSTM: k memory cells a unit that share one hidden state (Rocki 2016, section 3)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells.compat import LanesFirst


class ArrayLSTM(LanesFirst, activate_alone_reads_rows=True):
    r"""Array-LSTM layer, batch first, with the interface and weights of array-lstm 0.0.1.

    For every lane j, all reading the same h (equations 3.7 to 3.12 of arXiv 1607.03085v2):

        f_j, i_j, o_j = sigmoid(W_j x + U_j h + b_j)                          (3.7-3.9)
        g_j           = tanh(W_j x + U_j h + b_j)                             (3.10)
        c_j'          = f_j * c_j + i_j * g_j                                 (3.11)
        h'            = sum_j o_j * tanh(c_j')                                (3.12)

    Row `lane * 4H + gate * H + unit` of `i2h` (W) and `h2h` (U) belongs to that lane, gate (f, i, o, g) and unit; b is
    the sum of their biases.

    A subclass may override `update_hidden`, or `forward_cell` as a whole; `forward`, export and serving then follow it.

    Args:
        input_size: I.
        hidden_size: H.
        k: number of lanes.

    Raises:
        ValueError: a size is smaller than 1.
    """

    has_lanes = True
    keeping_bias: ClassVar[float] = 1.0
    """What a forget gate's bias is raised by for a cell that starts as a memory."""

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size, k)
        self.i2h = nn.Linear(input_size, 4 * hidden_size * k)
        self.h2h = nn.Linear(hidden_size, 4 * hidden_size * k)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return h (H) and c (k, H)."""
        return {"h": (self.hidden_size,), "c": (self.k, self.hidden_size)}

    def project(self, x: Tensor) -> Tensor:  # x (..., I)
        """Return W x + b (..., 4Hk)."""
        return self.affine(x)

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:  # projected (B, 4Hk)
        """Return h' as the output, and h' and c' as the next state."""
        h, c = state  # (B, H), (B, k, H)
        f, i, o, g = self.gates(projected, h)  # (3.7-3.10)
        c = f * c + i * g  # (3.11)
        h = self.pool(o, c)  # (3.12)
        return h, [h, c]

    @torch.no_grad()
    def start_as_memory(self) -> None:
        """Set g = tanh(x), unit by unit, and move the bias of f: each c' starts as a fading sum of the inputs."""
        gates = (self.k, 4, self.hidden_size)  # f, i, o, g
        w, u = (linear.weight.view(*gates, -1) for linear in (self.i2h, self.h2h))
        b, own = (linear.bias.view(gates) for linear in (self.i2h, self.h2h))
        w[:, 3] = torch.eye(self.hidden_size, self.input_size)
        for zero in (u, b, own):
            zero[:, 3] = 0.0
        b[:, 0] += self.keeping_bias

    def affine(self, x: Tensor) -> Tensor:  # x (..., I)
        """Return W x + b (..., 4Hk)."""
        return F.linear(x, self.i2h.weight, self.i2h.bias + self.h2h.bias)

    def gates(self, wx: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # wx = W x + b (B, 4Hk), h (B, H)
        """Return f, i, o and g, each (B, k, H)."""
        return self.activate(torch.addmm(wx, h, self.h2h.weight.t()))  # of W x + U h + b

    def pool(self, o: Tensor, c: Tensor) -> Tensor:  # both (B, k, H), c being c'
        """Return h' (B, H)."""
        return (o * c.tanh()).sum(1)
