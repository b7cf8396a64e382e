"""AttentionArrayLSTM: the input decides how much each lane takes part (Rocki 2016, section 4, as array-lstm has it)."""

import torch
from torch import Tensor, nn

from arraylstm.cells.array import ArrayLSTM


class AttentionArrayLSTM(ArrayLSTM, activate_alone_reads_rows=True):
    r"""Array-LSTM whose gates are scaled by a softmax over lanes, with the weights of array-lstm 0.0.1.

        s_j           = softmax over lanes of sigmoid(W_a x + b_a)_j          (4.1, 4.2; no recurrent term)
        f_j, i_j, o_j = s_j * sigmoid(W_j x + U_j h + b_j)                    (4.3-4.5)
        c_j'          = (1 - f_j) * c_j + i_j * g_j                           (4.7: a forget gate of 1 erases)
        h'            = sum_j o_j * tanh(c_j')                                (4.8)

    With `max_pooling` every lane's s_j becomes the largest of them, as array-lstm does; no lane is selected.
    Row `lane * H + unit` of `i2a` belongs to that lane and unit.

    Args:
        input_size: I.
        hidden_size: H.
        k: number of lanes.
        max_pooling: give every lane the largest of the lanes' weights.
    """

    keeping_bias = -1.0  # a forget gate of 1 erases

    max_pooling: bool

    def __init__(self, input_size: int, hidden_size: int, k: int, max_pooling: bool = False) -> None:
        super().__init__(input_size, hidden_size, k)
        self.max_pooling = max_pooling
        self.i2a = nn.Linear(input_size, hidden_size * k)

    def project(self, x: Tensor) -> Tensor:  # x (..., I)
        """Return W x + b and the lanes' weights s side by side (..., 4Hk + Hk)."""
        a = self.i2a(x).sigmoid()  # (4.1)
        s = torch.unflatten(a, -1, [self.k, self.hidden_size]).softmax(-2)  # (4.2)
        if self.max_pooling:
            s = torch.cat([s.amax(-2, keepdim=True)] * self.k, -2)  # an expanded one would ask a graph for B
        return torch.cat([self.affine(x), s.flatten(-2)], -1)

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:  # projected (B, 5Hk)
        """Return h' as the output, and h' and c' as the next state."""
        h, c = state  # (B, H), (B, k, H)
        wx, lanes = self.split(projected)
        f, i, o, g = self.gates(wx, h)
        s = self.attend(lanes, h)
        c = (1 - s * f) * c + s * i * g  # (4.7)
        h = self.pool(s * o, c)  # (4.8)
        return h, [h, c]

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor]:  # projected (B, 5Hk)
        """Return the gates' part (B, 4Hk) and the lanes' part (B, Hk) of what `project` gives."""
        wx, lanes = torch.split(projected, [4 * self.k * self.hidden_size, self.k * self.hidden_size], 1)
        return wx, lanes

    def attend(self, lanes: Tensor, h: Tensor) -> Tensor:  # lanes (B, Hk) from `project`, h (B, H)
        """Return what scales each lane's gates (B, k, H): s."""
        return lanes.view(h.size(0), self.k, self.hidden_size)

    def extra_repr(self) -> str:
        """Show the sizes in `print(layer)`."""
        return f"{super().extra_repr()}, max_pooling={self.max_pooling}"


class MaxAttentionArrayLSTM(AttentionArrayLSTM):
    """`AttentionArrayLSTM` with `max_pooling=True`, constructed like the other cells."""

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size, k, max_pooling=True)
