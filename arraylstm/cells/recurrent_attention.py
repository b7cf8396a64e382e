"""RecurrentAttentionArrayLSTM: input and hidden state decide how much each lane takes part (Rocki 2016, section 4)."""

import torch
from torch import Tensor, nn

from arraylstm.cells.array import ArrayLSTM
from arraylstm.cells.attention import AttentionArrayLSTM


class RecurrentAttentionArrayLSTM(AttentionArrayLSTM, activate_alone_reads_rows=True):
    r"""Array-LSTM with the paper's soft lane selection, whose lane weights read the hidden state too.

        a_j           = sigmoid(W_a x + U_a h + b_a)_j                        (4.1)
        s_j           = softmax over lanes of a_j                             (4.2)
        f_j, i_j, o_j = s_j * sigmoid(W_j x + U_j h + b_j)                    (4.3-4.5)
        g_j           = tanh(W_j x + U_j h + b_j)                             (4.6)
        c_j'          = (1 - f_j) * c_j + i_j * g_j                           (4.7: a forget gate of 1 erases)
        h'            = sum_j o_j * tanh(c_j')                                (4.8)

    Row `lane * H + unit` of `i2a` and `h2a` belongs to that lane and unit; where `h2a` is zero this is
    `AttentionArrayLSTM`.

    Args:
        input_size: I.
        hidden_size: H.
        k: number of lanes.
    """

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size, k)
        self.h2a = nn.Linear(hidden_size, hidden_size * k, bias=False)

    def project(self, x: Tensor) -> Tensor:  # x (..., I)
        """Return W x + b and W_a x + b_a side by side (..., 4Hk + Hk)."""
        return torch.cat([self.affine(x), self.i2a(x)], -1)

    def attend(self, lanes: Tensor, h: Tensor) -> Tensor:  # lanes = W_a x + b_a (B, Hk), h (B, H)
        """Return what scales each lane's gates (B, k, H): s."""
        return self.weigh(lanes, h)

    def weigh(self, lanes: Tensor, h: Tensor) -> Tensor:  # lanes = W_a x + b_a (B, Hk), h (B, H)
        """Return s (B, k, H)."""
        a = torch.addmm(lanes, h, self.h2a.weight.t()).sigmoid()  # (4.1)
        return a.view(h.size(0), self.k, self.hidden_size).softmax(1)  # (4.2)

    def extra_repr(self) -> str:
        """Show the sizes in `print(layer)`."""
        return ArrayLSTM.extra_repr(self)
