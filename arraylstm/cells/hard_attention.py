"""Hard lane selection: attention picks one lane per unit, the others rest (Rocki 2016, sections 4.1 and 5.2.1)."""

from torch import Tensor

from arraylstm.cells.lanes import draw_lane, first_largest, one_hot
from arraylstm.cells.recurrent_attention import RecurrentAttentionArrayLSTM


class MaxLaneArrayLSTM(RecurrentAttentionArrayLSTM, activate_alone_reads_rows=True):
    r"""Array-LSTM in which the lane of the largest attention weight does the step: the paper's max pooling.

    With s of `RecurrentAttentionArrayLSTM` and, for each row and unit, z_j = 1 at the first of the largest s_j, else 0,

        c_j' = z_j * ((1 - f_j) * c_j + i_j * g_j) + (1 - z_j) * c_j          (4.7 with z in the place of s)
        h'   = sum_j z_j * o_j * tanh(c_j')                                   (4.8 likewise)

    where f_j, i_j and o_j are plain gates: the chosen lane is processed in full, the others are carried as they are
    and not read. In train() z passes the gradient on to s of the chosen lane, dz_j = z_j * ds_j; in eval() the output
    is piecewise constant in s, and the attention's weights get no gradient. The weights are those of
    `RecurrentAttentionArrayLSTM`.
    """

    picks_lanes = True

    def attend(self, lanes: Tensor, h: Tensor) -> Tensor:  # lanes = W_a x + b_a (B, Hk), h (B, H)
        """Return what scales each lane's gates (B, k, H): z."""
        s = self.weigh(lanes, h)
        z = one_hot(first_largest(s), s)
        return through_chosen_lane(z, s) if self.training else z


class SemiHardAttentionArrayLSTM(RecurrentAttentionArrayLSTM, activate_alone_reads_rows=True):
    r"""Array-LSTM in which a lane drawn from the attention weights does the step; soft attention's gradient.

    The step of `MaxLaneArrayLSTM`, but in train(), for each row, unit and step,

        z ~ one-hot Categorical(s),    dz_j = ds_j                            (5.2.1: backward as in soft attention)

    The paper gives no rule for inference. Given x, h and c, both c' and h' are linear in the one-hot z, since
    z_j * tanh(c_j') = z_j * tanh((1 - f_j) * c_j + i_j * g_j); so their means over the draw are exactly

        E[c_j'] = (1 - s_j * f_j) * c_j + s_j * i_j * g_j                     (soft attention's 4.7)
        E[h']   = sum_j s_j * o_j * tanh((1 - f_j) * c_j + i_j * g_j)

    and these are the step in eval(). Dropout, too, uses its mean in inference. So an answer has no variance: it is a
    function of its row's items. The mode of the draw is `MaxLaneArrayLSTM`, which takes the same weights.

    A subclass's `update_hidden` receives z * o and c', in eval() s * o and the cells as processed; that gives the mean
    where it is linear in the gates, as this one is.
    """

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:  # projected (B, 5Hk)
        """Return h' as the output, and h' and c' as the next state."""
        h, c = state  # (B, H), (B, k, H)
        wx, lanes = self.split(projected)
        f, i, o, g = self.gates(wx, h)
        z = self.attend(lanes, h)
        processed = (1 - f) * c + i * g
        c = z * processed + (1 - z) * c  # (4.7)
        h = self.pool(z * o, c if self.training else processed)  # (4.8)
        return h, [h, c]

    def attend(self, lanes: Tensor, h: Tensor) -> Tensor:  # lanes = W_a x + b_a (B, Hk), h (B, H)
        """Return z (B, k, H), in eval() its mean s."""
        s = self.weigh(lanes, h)
        return self.link(one_hot(draw_lane(s), s), s) if self.training else s

    def link(self, z: Tensor, s: Tensor) -> Tensor:  # both (B, k, H)
        """Return z with the gradient that it passes on to s."""
        return z + (s - s.detach())


class HardAttentionArrayLSTM(SemiHardAttentionArrayLSTM, activate_alone_reads_rows=True):
    """`SemiHardAttentionArrayLSTM` with the gradient through the drawn lane only: dz_j = z_j * ds_j (5.2.1)."""

    def link(self, z: Tensor, s: Tensor) -> Tensor:  # both (B, k, H)
        """Return z with the gradient that it passes on to s."""
        return through_chosen_lane(z, s)


def through_chosen_lane(z: Tensor, s: Tensor) -> Tensor:  # both (B, k, H)
    """Return z with the gradient dz_j = z_j * ds_j."""
    return z * (1 + (s - s.detach()))
