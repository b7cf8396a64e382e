"""MarkovCell: k LSTM cells over one state; a Markov chain picks the one that moves it (Kuo and Chien 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells.base import Cell
from arraylstm.cells.lanes import first_largest, one_hot
from arraylstm.checks import require_positive


class MarkovCell(Cell):
    r"""One layer of the Markov recurrent network, with the weights of MarkovRNNs' kLSTM.py.

    Input and state give the probability q_j that lane j moves the state; every lane proposes a step from the same
    h and c, and z weighs the proposals (C.-Y. Kuo and J.-T. Chien, "Markov Recurrent Neural Networks", MLSP 2018):

        l   = x W_xz + h W_hz + b_xz
        q   = softmax over lanes of l
        z   = softmax over lanes of (l + e) / tau,  e_j ~ Gumbel(0, 1)        in train()
        z   = 1 at the first of the largest q_j, else 0                       in eval()

        i_j, f_j, o_j = sigmoid(x W_j + h U_j + b_j)
        g_j           = tanh(x W_j + h U_j + b_j)
        c_j           = f_j * c + i_j * g_j
        h_j           = o_j * tanh(c_j)
        c'            = sum_j z_j c_j
        h'            = sum_j z_j h_j

    The smaller `tau`, the closer z comes to a one-hot draw from q, and the larger its gradient's variance. It is 1, at
    which `NextItemModel("markov", ...)` trains, until it is set on the cell, as `MarkovLSTM` does in every call. In
    eval() the output does not depend smoothly on q, and W_xz, W_hz and b_xz get no gradient.

    Weights multiply from the right. Column `gate * kH + lane * H + unit` of `W_x_4gates` and `W_h_4gates` belongs to
    that gate (i, g, f, o), lane and unit. All are drawn from U(-1/sqrt(n), 1/sqrt(n)), n their last axis's length.

    Args:
        input_size: I.
        hidden_size: H.
        k: number of lanes.
        use_bias: whether there are `b_xz` and `b_4gates`.

    Raises:
        ValueError: a size is smaller than 1; in a step, `tau` is not above 0.
    """

    has_lanes = True
    picks_lanes = True

    k: int
    tau: float
    b_xz: Tensor | None
    b_4gates: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, k: int, use_bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        require_positive("k", k)
        self.k = k
        self.tau = 1.0
        self.W_xz = _uniform(input_size, k)
        self.W_hz = _uniform(hidden_size, k)
        self.W_x_4gates = _uniform(input_size, 4 * k * hidden_size)
        self.W_h_4gates = _uniform(hidden_size, 4 * k * hidden_size)
        self.register_parameter("b_xz", _uniform(k) if use_bias else None)
        self.register_parameter("b_4gates", _uniform(4 * k * hidden_size) if use_bias else None)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return h (H) and c (H), the one state that all lanes share."""
        return {"h": (self.hidden_size,), "c": (self.hidden_size,)}

    def diagnostic_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return z (k), how much each lane moved the state, and q_z (k), how likely it was to."""
        return {"z": (self.k,), "q_z": (self.k,)}

    def project(self, x: Tensor) -> Tensor:  # x (..., I)
        """Return x W_xz + b_xz and x W + b side by side (..., k + 4kH)."""
        logits = F.linear(x, self.W_xz.t(), self.b_xz)
        return torch.cat([logits, F.linear(x, self.W_x_4gates.t(), self.b_4gates)], -1)

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:  # projected (B, k + 4kH)
        """Return h' as the output, and h' and c' as the next state."""
        h, c, _, _ = self.move(projected, state[0], state[1])
        return h, [h, c]

    def step_with_diagnostics(
        self, projected: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `step` does, and return z and q, both (B, k), too."""
        h, c, z, q = self.move(projected, state[0], state[1])
        return h, [h, c], [z, q]

    def move(  # projected (B, k + 4kH), h and c (B, H)
        self, projected: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return h' and c', both (B, H), and z and q, both (B, k)."""
        wx_z, wx = torch.split(projected, [self.k, 4 * self.k * self.hidden_size], 1)
        l = torch.addmm(wx_z, h, self.W_hz)  # noqa: E741 - the paper's letter
        q = l.softmax(1)
        z = self.choose(l, q)
        a = torch.addmm(wx, h, self.W_h_4gates).view(h.size(0), 4 * self.k, self.hidden_size)
        i, g, f, o = a.chunk(4, 1)
        lane_c = f.sigmoid() * c.unsqueeze(1) + i.sigmoid() * g.tanh()
        lane_h = o.sigmoid() * lane_c.tanh()
        return self.weigh(z, lane_h), self.weigh(z, lane_c), z, q

    def choose(self, l: Tensor, q: Tensor) -> Tensor:  # noqa: E741 - l and q (B, k)
        """Return z (B, k)."""
        if not self.tau > 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")
        if self.training:
            return ((l + self.gumbel(l)) / self.tau).softmax(1)
        return one_hot(first_largest(q), q)

    def gumbel(self, like: Tensor) -> Tensor:
        """Draw e, Gumbel(0, 1) noise shaped and typed as a tensor, as `torch.nn.functional.gumbel_softmax` does."""
        return -torch.empty_like(like).exponential_().log()

    def weigh(self, z: Tensor, lanes: Tensor) -> Tensor:  # z (B, k), lanes (B, k, H)
        """Return the sum (B, H) of the lanes' proposals, weighed by z."""
        return (z.unsqueeze(2) * lanes).sum(1)

    def extra_repr(self) -> str:
        """Show the sizes in `print(cell)`."""
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}, k={self.k}, tau={self.tau}"


def _uniform(*shape: int) -> nn.Parameter:
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
