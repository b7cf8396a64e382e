"""MarkovLSTM: the Markov recurrent network over whole sequences, with the interface of MarkovRNNs' kLSTM.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells.markov import MarkovCell
from arraylstm.checks import lengths_beside, require_dropout, require_input, require_positive
from arraylstm.stack import input_widths


class MarkovLSTM(nn.Module):
    """Layers of `MarkovCell` and a linear map of the last step's h, to classify sequences (Kuo and Chien 2018).

    Its state dict is kLSTM.py's: `fc.*` and `cell_<layer>.*`. In train() lanes are drawn; in eval() only the likeliest
    lane moves the state. There is no `is_training` argument.

    Args:
        input_size: I.
        hidden_size: H of every layer.
        output_size: width of the output.
        num_layers: L.
        k_cells: k, lanes of every layer.
        use_bias: whether the cells have biases.
        dropout_prob: probability of zeroing an output of any layer but the last in training.

    Raises:
        ValueError: a size is smaller than 1, or a probability outside [0, 1).
    """

    input_size: int
    hidden_size: int
    num_layers: int
    dropout: float

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
        k_cells: int = 2,
        use_bias: bool = True,
        dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive("output_size", output_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = require_dropout(dropout_prob)
        for layer, width in enumerate(input_widths(input_size, hidden_size, num_layers)):
            self.add_module(f"cell_{layer}", MarkovCell(width, hidden_size, k_cells, use_bias))
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(
        self,
        x: Tensor,
        tau: float = 1.0,
        length: Tensor | list[int] | None = None,
        s_t: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Run the layers over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            tau: temperature of the draw in train(), above 0; kept as the cells' `tau`.
            length: (B,) int64 or a list, how many of the S steps each row takes; None lets all rows take all.
            s_t: (h, c) to start from, each (L, B, H) as returned, or (B, H) for all layers alike; None is zeros.

        Returns:
            output (B, output_size) for every row's last h; z and q_z (B, S, k) of the highest layer, also past a row's
            length; its h (B, S, H), which repeats a row's last h past its length; and (h, c), each (L, B, H).

        Raises:
            ValueError: x, h, c or length has another shape, a length lies outside 0 to S, or tau is not above 0.
        """
        h_0, c_0 = self._start(x, s_t)
        lengths = None if length is None else lengths_beside(x, length)
        z, q_z = x, x
        h_last: list[Tensor] = []
        c_last: list[Tensor] = []
        for cell in self.children():
            if hasattr(cell, "state_names"):  # a cell, not fc; a script cannot ask for the class
                cell.tau = tau  # type: ignore[assignment]
                layer = len(h_last)
                x = x if layer == 0 else F.dropout(x, self.dropout, self.training)
                start = [h_0[layer], c_0[layer]]
                x, (h, c), (z, q_z) = cell.unroll_with_diagnostics(x, start, lengths)  # type: ignore[operator]
                x = x if lengths is None else repeat_last(x, h_0[layer], lengths)
                h_last.append(h)
                c_last.append(c)
        return self.fc(h_last[-1]), z, q_z, x, (torch.stack(h_last), torch.stack(c_last))

    def _start(self, x: Tensor, s_t: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return the h and c (L, B, H) to start from."""
        require_input(x, self.input_size)
        shape = [self.num_layers, x.size(0), self.hidden_size]
        if s_t is None:
            return x.new_zeros(shape), x.new_zeros(shape)
        for state in s_t:
            if list(state.shape) != shape and list(state.shape) != shape[1:]:
                raise ValueError(f"h and c must be {shape} or {shape[1:]}, got {list(state.shape)}")
        return s_t[0].expand(shape), s_t[1].expand(shape)


def repeat_last(series: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    """Return the series (B, S, H) where each row repeats its last vector past its length; of no steps, its start."""
    steps = torch.arange(1, series.size(1) + 1, device=series.device)
    source = torch.minimum(steps.unsqueeze(0), lengths.unsqueeze(1)).unsqueeze(2)
    return torch.cat([start.unsqueeze(1), series], 1).gather(1, source.expand(series.shape))
