"""Stochastic Memory Arrays: lanes drawn by chance do the step, the others rest (Rocki 2016, section 5.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from arraylstm.cells.array import ArrayLSTM
from arraylstm.cells.lanes import one_hot


class StochasticMemoryArray(ArrayLSTM, activate_alone_reads_rows=True):
    r"""Array-LSTM in which one of k lanes, drawn uniformly and independently of the gates, does the step.

    With the gates and weights of `ArrayLSTM` and, for each row, unit and step, m in {0, 1}^k (section 5.2),

        c_j' = m_j * (f_j * c_j + i_j * g_j) + (1 - m_j) * c_j
        h'   = sum_j m_j * o_j * tanh(c_j')

    In train() m is drawn: exactly one m_j is 1. The paper gives no rule for inference. Given x, h and c, both c' and h'
    are linear in m, since m_j * tanh(c_j') = m_j * tanh(f_j * c_j + i_j * g_j); so, with p = E[m], their means over
    the draw are exactly

        E[c_j'] = p_j * (f_j * c_j + i_j * g_j) + (1 - p_j) * c_j
        E[h']   = sum_j p_j * o_j * tanh(f_j * c_j + i_j * g_j)

    and these are the step in eval(). Dropout, too, uses its mean in inference. So an answer has no variance:
    it is a function of its row's items.

    A subclass states another law in `draw` and its mean in `mean`. Its `update_hidden` receives m * o and c', in eval()
    p * o and the cells as processed; that gives the mean where it is linear in the gates, as this one is.
    """

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:  # projected (B, 4Hk)
        """Return h' as the output, and h' and c' as the next state."""
        h, c = state  # (B, H), (B, k, H)
        f, i, o, g = self.gates(projected, h)
        m = self.draw(c) if self.training else self.mean(c)
        processed = f * c + i * g
        c = m * processed + (1 - m) * c
        h = self.pool(m * o, c if self.training else processed)
        return h, [h, c]

    def draw(self, c: Tensor) -> Tensor:  # c (B, k, H)
        """Return m, shaped and typed as c."""
        return one_hot(torch.randint(0, self.k, [c.size(0), 1, self.hidden_size], device=c.device), c)

    def mean(self, c: Tensor) -> Tensor:
        """Return p (k, 1), typed as c."""
        return c.new_full([self.k, 1], 1 / self.k)


class HalfStochasticMemoryArray(StochasticMemoryArray, activate_alone_reads_rows=True):
    """`StochasticMemoryArray` with half of the lanes: one of each pair {2l, 2l + 1}, each with probability 1/2.

    If k is odd the last lane has no partner and always takes part; so k = 1 is `ArrayLSTM`.
    """

    def draw(self, c: Tensor) -> Tensor:  # c (B, k, H)
        """Return m, shaped and typed as c."""
        even = torch.randint(0, 2, [c.size(0), self.k // 2, self.hidden_size], device=c.device).to(c.dtype)
        pairs = torch.stack([even, 1 - even], 2).flatten(1, 2)
        return F.pad(pairs, [0, 0, 0, self.k % 2], value=1.0)

    def mean(self, c: Tensor) -> Tensor:
        """Return p (k, 1), typed as c."""
        return F.pad(c.new_full([self.k - self.k % 2, 1], 0.5), [0, 0, 0, self.k % 2], value=1.0)
