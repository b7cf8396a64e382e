"""LSTM2002Layer: memory blocks whose gates see the cells through peepholes (Gers, Schraudolph and Schmidhuber 2002)."""

import torch
from torch import Tensor, nn

from arraylstm.cells.base import Cell, clear_past
from arraylstm.checks import require_input, require_positive


class LSTM2002Layer(Cell):
    r"""Peephole LSTM layer, batch first, with the interface and weights of language-model-playground's `LSTM2002Layer`.

    The D = n_blk * d_blk cells lie in n_blk blocks; the d_blk cells of a block share its gates. With V . c the scalar
    product of a block's own cells with a vector of weights (Gers et al. 2002; numbers as in the playground's docs):

        f  = sigmoid(W_f x + U_f h + V_f . c + b_f)     one a block    (1)
        i  = sigmoid(W_i x + U_i h + V_i . c + b_i)     one a block    (2)
        g  = tanh(W x + U h + b)                        one a cell     (3)
        c' = f * c + i * g
        o  = sigmoid(W_o x + U_o h + V_o . c' + b_o)    one a block, which sees the new cells    (4)
        h' = o * tanh(c')                               flat: unit = block * d_blk + cell    (5)

    It differs from the paper as the playground does: tanh in (3) and (5), where the paper has identities. Its weights
    by name: W `fc_x2*.weight`, b `fc_x2*.bias`, U `fc_h2*.weight`, V `pc_c2*`, each with `fg`, `ig`, `og` or
    (W, U and b of the cells) `mc_in`. Peepholes are zero and the rest as `nn.Linear` draws it until `params_init()`.

    Without a state it starts from the buffers `c_0` and `h_0`, which are zero unless set.

    Args:
        d_blk: cells in a block.
        in_feat: I, features of one input vector.
        init_fb: upper bound of the forget gates' biases as `params_init` draws them.
        init_ib: lower bound of the input gates' biases.
        init_lower: lower bound of all other weights.
        init_ob: lower bound of the output gates' biases.
        init_upper: upper bound of all other weights.
        n_blk: blocks.

    Raises:
        ValueError: a size is smaller than 1.
    """

    d_blk: int
    d_hid: int
    in_feat: int
    n_blk: int
    c_0: Tensor
    h_0: Tensor

    def __init__(
        self,
        *,
        d_blk: int = 1,
        in_feat: int = 1,
        init_fb: float = 1.0,
        init_ib: float = -1.0,
        init_lower: float = -0.1,
        init_ob: float = -1.0,
        init_upper: float = 0.1,
        n_blk: int = 1,
    ) -> None:
        for name, size in (("d_blk", d_blk), ("n_blk", n_blk), ("in_feat", in_feat)):
            require_positive(name, size)
        super().__init__(in_feat, n_blk * d_blk)
        self.d_blk, self.n_blk, self.d_hid, self.in_feat = d_blk, n_blk, n_blk * d_blk, in_feat
        self.init_fb, self.init_ib, self.init_ob = init_fb, init_ib, init_ob
        self.init_lower, self.init_upper = init_lower, init_upper
        self.pc_c2fg = nn.Parameter(torch.zeros(1, n_blk, d_blk))
        self.pc_c2ig = nn.Parameter(torch.zeros(1, n_blk, d_blk))
        self.pc_c2og = nn.Parameter(torch.zeros(1, n_blk, d_blk))
        self.register_buffer("h_0", torch.zeros(1, self.d_hid))
        self.register_buffer("c_0", torch.zeros(1, n_blk, d_blk))
        self.fc_x2ig = nn.Linear(in_feat, n_blk)  # in the order that the playground's state dicts have
        self.fc_x2og = nn.Linear(in_feat, n_blk)
        self.fc_h2ig = nn.Linear(self.d_hid, n_blk, bias=False)
        self.fc_h2og = nn.Linear(self.d_hid, n_blk, bias=False)
        self.fc_x2mc_in = nn.Linear(in_feat, self.d_hid)
        self.fc_h2mc_in = nn.Linear(self.d_hid, self.d_hid, bias=False)
        self.fc_x2fg = nn.Linear(in_feat, n_blk)
        self.fc_h2fg = nn.Linear(self.d_hid, n_blk, bias=False)

    def params_init(self) -> None:
        """Draw b_f from U(0, init_fb), b_i from U(init_ib, 0), b_o from U(init_ob, 0), all else from U(lower, upper).

        So forget gates start open, input and output gates closed.
        """
        for weight in self.parameters():
            nn.init.uniform_(weight, self.init_lower, self.init_upper)
        nn.init.uniform_(self.fc_x2fg.bias, 0, self.init_fb)
        nn.init.uniform_(self.fc_x2ig.bias, self.init_ib, 0)
        nn.init.uniform_(self.fc_x2og.bias, self.init_ob, 0)

    # -- the cell protocol ---------------------------------------------------------------------------------

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return c (n_blk, d_blk) and h (D)."""
        return {"c": (self.n_blk, self.d_blk), "h": (self.d_hid,)}

    def diagnostic_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return c (n_blk, d_blk): the new cells, whose whole history `forward` returns."""
        return {"c": (self.n_blk, self.d_blk)}

    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        """Return the buffers `c_0` and `h_0` for every row of a batch."""
        return [self.c_0.expand(batch, -1, -1), self.h_0.expand(batch, -1)]

    def learn_start(self) -> None:
        """Make `c_0` and `h_0` parameters, which keep their names and values."""
        for name in ("h_0", "c_0"):
            start = getattr(self, name)
            delattr(self, name)
            self.register_parameter(name, nn.Parameter(start))

    def project(self, x: Tensor) -> Tensor:  # x (..., I)
        """Return W x + b of f, i, g and o side by side (..., 3 n_blk + D)."""
        return torch.cat([self.fc_x2fg(x), self.fc_x2ig(x), self.fc_x2mc_in(x), self.fc_x2og(x)], -1)

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:  # (B, 3 n_blk + D)
        """Return h' as the output, and c' and h' as the next state."""
        c, h = state  # (B, n_blk, d_blk), (B, D)
        a_f, a_i, a_g, a_o = torch.split(projected, [self.n_blk, self.n_blk, self.d_hid, self.n_blk], 1)
        f = gate(a_f, h, self.fc_h2fg.weight, c, self.pc_c2fg)  # (1)
        i = gate(a_i, h, self.fc_h2ig.weight, c, self.pc_c2ig)  # (2)
        g = torch.addmm(a_g, h, self.fc_h2mc_in.weight.t()).tanh().view(h.size(0), self.n_blk, self.d_blk)  # (3)
        c = f * c + i * g
        o = gate(a_o, h, self.fc_h2og.weight, c, self.pc_c2og)  # (4)
        h = (o * c.tanh()).flatten(1)  # (5)
        return h, [c, h]

    def step_with_diagnostics(
        self, projected: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `step` does, and return c' too."""
        output, following = self.step(projected, state)
        return output, following, [following[0]]

    # -- the playground's interface: cells first -----------------------------------------------------------

    def forward(  # type: ignore[override]
        self, x: Tensor, c_0: Tensor | None = None, h_0: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the layer over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            c_0: (B, n_blk, d_blk) or (1, n_blk, d_blk) to start from, never written to; None is the buffer `c_0`.
            h_0: (B, D) or (1, D), likewise.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            c (B, S, n_blk, d_blk) and h (B, S, D) after every step, both zero from a row's length on: a row goes on
            from its step `length - 1`. `unroll` returns that last state by itself.

        Raises:
            ValueError: x, c_0, h_0 or lengths has another shape, or a length lies outside 0 to S.
        """
        require_input(x, self.in_feat, lengths)
        c = for_each_row("c_0", self.c_0 if c_0 is None else c_0, [x.size(0), self.n_blk, self.d_blk])
        h = for_each_row("h_0", self.h_0 if h_0 is None else h_0, [x.size(0), self.d_hid])
        h_all, _, diagnostics = self.unroll_with_diagnostics(x, [c, h], lengths)
        return diagnostics[0] if lengths is None else clear_past(diagnostics[0], lengths), h_all

    def extra_repr(self) -> str:
        """Show the sizes in `print(layer)`."""
        return f"d_blk={self.d_blk}, in_feat={self.in_feat}, n_blk={self.n_blk}"


class PeepholeLSTM(LSTM2002Layer):
    """`LSTM2002Layer` constructed like the other cells: H / k blocks of k cells each, drawn by `params_init`.

    Args:
        input_size: I.
        hidden_size: H.
        k: cells in a block; with 1 every cell has gates of its own.

    Raises:
        ValueError: a size is smaller than 1, or hidden_size is no multiple of k.
    """

    has_lanes = True

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("k", k)):
            require_positive(name, size)
        if hidden_size % k:
            raise ValueError(f"hidden_size must be a multiple of k, the cells in a block; got {hidden_size} and k={k}")
        super().__init__(d_blk=k, in_feat=input_size, n_blk=hidden_size // k)
        self.params_init()


def gate(a: Tensor, h: Tensor, u: Tensor, c: Tensor, v: Tensor) -> Tensor:
    """Return sigmoid(a + U h + V . c) (B, n_blk, 1), from a (B, n_blk), h (B, D) and c (B, n_blk, d_blk)."""
    return (torch.addmm(a, h, u.t()) + (v * c).sum(2)).sigmoid().unsqueeze(2)


def for_each_row(name: str, state: Tensor, shape: list[int]) -> Tensor:
    """Return a state of this shape, which begins with B, from one of B rows or one row; else raise ValueError."""
    if list(state.shape) != shape and list(state.shape) != [1] + shape[1:]:
        raise ValueError(f"{name} must be {shape} or {[1] + shape[1:]}, got {list(state.shape)}")
    return state.expand(shape)
