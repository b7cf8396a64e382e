"""StochasticArrayLSTM: one lane per unit answers (Rocki 2016, section 5.1)."""

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
    """

    def pool_lanes(self, o: Tensor, c: Tensor, lanes: int) -> Tensor:
        """Return h' from o and c' of one shape, without their axis `lanes`."""
        p = o.softmax(lanes)  # (5.1)
        lane = draw_lane(p, lanes) if self.training else first_largest(p, lanes)  # (5.2)
        return (o.gather(lanes, lane) * c.gather(lanes, lane).tanh()).squeeze(lanes)
