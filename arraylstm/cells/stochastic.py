"""StochasticArrayLSTM: one lane per unit answers (Rocki 2016, section 5.1)."""

import warnings

import torch
from torch import Tensor

from arraylstm.cells.array import ArrayLSTM
from arraylstm.cells.lanes import draw_lane, first_largest


class StochasticArrayLSTM(ArrayLSTM):
    r"""Array-LSTM with stochastic output pooling, with the weights of array-lstm 0.0.1.

    Every lane's cell is updated as in `ArrayLSTM`; then, for each row and unit,

        p  = softmax over lanes of o                                          (5.1)
        j  ~ p in train(), argmax p in eval() (the first of equals)           (5.2)
        h' = o_j * tanh(c_j')

    The gradient flows through the chosen lane only. The paper draws the lane and gives no rule for inference. The rule
    here is the mode of the draw, for compatibility: array-lstm 0.0.1 takes the argmax always, so in eval() both agree
    (the mean over draws would be h' = sum_j p_j * o_j * tanh(c_j')). The argmax is taken after the softmax, whose
    rounding makes near-equal gates equal: argmax o itself would pick other lanes where gates saturate.

    array-lstm's answers never vary, so a program written for it may lack the call of eval(), and here get random
    answers. A layer that draws without gradients, as such a program does, therefore warns once.
    """

    picks_lanes = True
    has_warned = False

    def pool(self, o: Tensor, c: Tensor) -> Tensor:  # both (B, k, H), c being c'
        """Return h' (B, H)."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._warn_of_draws()
        p = o.softmax(1)  # (5.1)
        j = draw_lane(p) if self.training else first_largest(p)  # (5.2)
        return (o.gather(1, j) * c.gather(1, j).tanh()).squeeze(1)

    def _warn_of_draws(self) -> None:
        """Say once that lanes are drawn though no gradient is asked for, as when eval() is forgotten."""
        if self.training and not torch.is_grad_enabled() and not self.has_warned:
            self.has_warned = True
            warnings.warn(
                "StochasticArrayLSTM draws its lanes at random in train(), under no_grad too, where array-lstm takes "
                "the most likely one: call eval() before you predict",
                stacklevel=2,
            )
