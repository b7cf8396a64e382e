"""Stack: cells on top of each other, each with a state of its own."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells import make_cell
from arraylstm.cells.base import Cell
from arraylstm.checks import require_dropout, require_input, require_positive, require_state


class Stack(nn.ModuleDict):
    """Layers of cells, the output of one being the input of the next.

    State is a list of tensors (B, *shape), batch axis first, the lowest layer's first; `state_names` are those of the
    cells with `_l<layer>` added. A call takes it and returns the next one; it never writes to it.

    Args:
        cells: the layers from the bottom up, or a mapping of their names in the state dict to the layers.
        dropout: probability of zeroing an output of any layer but the last in training.

    Raises:
        ValueError: no cells, a width that does not fit the layer below, or a dropout outside [0, 1).
    """

    state_names: list[str]
    state_shapes: list[list[int]]
    diagnostic_names: list[str]
    diagnostic_shapes: list[list[int]]
    state_ends: list[int]
    input_size: int
    dropout: float

    def __init__(self, cells: Sequence[Cell] | Mapping[str, Cell], dropout: float = 0.0) -> None:
        named = dict(cells) if isinstance(cells, Mapping) else {str(layer): cell for layer, cell in enumerate(cells)}
        super().__init__(named)
        layers = list(named.values())
        if not layers:
            raise ValueError("a stack needs at least one cell")
        for layer, (below, above) in enumerate(pairwise(layers), start=1):
            if above.input_size != below.hidden_size:
                raise ValueError(
                    f"layer {layer} takes inputs of width {above.input_size}, the layer below gives {below.hidden_size}"
                )
        self.input_size = layers[0].input_size
        self.dropout = require_dropout(dropout)
        self.state_names, self.state_shapes = _numbered([cell.state_shapes() for cell in layers])
        self.diagnostic_names, self.diagnostic_shapes = _numbered([cell.diagnostic_shapes() for cell in layers])
        counts = [len(cell.state_shapes()) for cell in layers]
        self.state_ends = [sum(counts[: layer + 1]) for layer in range(len(counts))]

    def forward(
        self, x: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            state: tensors (B, *shape) as `state_shapes` gives them; None starts from `initial_state`.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            The last layer's outputs (B, S, H), zero from a row's length on, and every row's state after its last step.

        Raises:
            ValueError: x, a state tensor or lengths has another shape, or a length lies outside 0 to S.
        """
        require_input(x, self.input_size, lengths)
        given = self.initial_state(x.size(0), x) if state is None else state
        require_state(given, x.size(0), self.state_names, self.state_shapes)
        outputs, following, _ = self.unroll(x, given, lengths)
        return outputs, following

    @torch.jit.export
    def unroll(
        self, x: Tensor, state: list[Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run every layer over whole sequences, as `Cell.unroll_with_diagnostics` does."""
        return self._climb(x, state, lengths, False)

    @torch.jit.export
    def step(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Advance every layer by one step, as `Cell.step_with_diagnostics` does."""
        return self._climb(x, state, None, True)

    def _climb(
        self, x: Tensor, state: list[Tensor], lengths: Tensor | None, one_step: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run the layers from the bottom, each on the output of the one below."""
        following: list[Tensor] = []
        diagnostics: list[Tensor] = []
        for layer, cell in enumerate(self.values()):
            x = x if layer == 0 else F.dropout(x, self.dropout, self.training)
            before = state[len(following) : self.state_ends[layer]]
            if one_step:
                x, after, shown = cell.step_with_diagnostics(cell.project(x), before)  # type: ignore[operator]
            else:
                x, after, shown = cell.unroll_with_diagnostics(x, before, lengths)  # type: ignore[operator]
            following.extend(after)
            diagnostics.extend(shown)
        return x, following, diagnostics

    @torch.jit.export
    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        """Return the cells' initial states for a batch, in a tensor's dtype and on its device."""
        state: list[Tensor] = []
        for cell in self.values():
            state.extend(cell.initial_state(batch, like))  # type: ignore[operator]
        return state

    def start_as_memory(self) -> None:
        """Let the layers start as memories of what they read; see `Cell.start_as_memory`."""
        for cell in self.values():
            cell.start_as_memory()  # type: ignore[operator]

    def learn_start(self) -> None:
        """Let the layers learn what they start from; see `Cell.learn_start`."""
        for cell in self.values():
            cell.learn_start()  # type: ignore[operator]


def make_stack(
    cell: str, input_size: int, hidden_size: int, k: int = 4, num_layers: int = 1, dropout: float = 0.0
) -> Stack:
    """Construct a stack of one registry cell.

    Args:
        cell: a name in `arraylstm.CELLS`.
        input_size: I, features of one input vector.
        hidden_size: H of every layer.
        k: lanes per unit, for the cells that have lanes.
        num_layers: L.
        dropout: probability of zeroing an output of any layer but the last in training.

    Raises:
        ValueError: an unknown cell, a size smaller than 1, or a dropout outside [0, 1).
    """
    widths = input_widths(input_size, hidden_size, num_layers)
    return Stack([make_cell(cell, width, hidden_size, k) for width in widths], dropout)


def input_widths(input_size: int, hidden_size: int, num_layers: int) -> list[int]:
    """Return the width of every layer's input, or raise ValueError unless there is at least one layer."""
    require_positive("num_layers", num_layers)
    return [input_size] + [hidden_size] * (num_layers - 1)


def _numbered(layers: list[dict[str, tuple[int, ...]]]) -> tuple[list[str], list[list[int]]]:
    """Return the tensors' names with their layers' numbers, and their shapes."""
    names = [f"{name}_l{layer}" for layer, shapes in enumerate(layers) for name in shapes]
    return names, [list(shape) for shapes in layers for shape in shapes.values()]
