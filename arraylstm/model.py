"""NextItemModel: embedding, a stack of one registry cell, and a linear layer to one logit per item."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells import make_cell
from arraylstm.cells.base import require_positive
from arraylstm.vocabulary import Vocabulary


class NextItemModel(nn.Module):
    """Predict the next item of a session from the items so far.

    State is explicit: a list of tensors, batch axis first, in the order of `state_names`; it is handed in, handed
    back and never written to. It scripts with `torch.jit.script`; the scripted module has `forward`, `step` and
    `initial_state`.

    Args:
        cell: a name in `arraylstm.CELLS`.
        num_items: V, the number of items.
        hidden_size: H.
        k: lanes per unit, for the cells that have lanes.
        num_layers: L, cells stacked on each other.
        embedding_size: E, the width of the learned item embedding; None feeds one-hot vectors of width V.
        dropout: probability of zeroing an output of any layer in training.
        vocabulary: the items' labels; without one, items are the integers 0 to V-1.

    Raises:
        ValueError: an unknown cell, a size smaller than 1, a dropout outside [0, 1), or a vocabulary of another size.
    """

    config: dict[str, Any]
    state_names: list[str]
    state_shapes: list[list[int]]

    def __init__(
        self,
        cell: str,
        num_items: int,
        hidden_size: int,
        k: int = 4,
        num_layers: int = 1,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        require_positive("num_items", num_items)
        require_positive("num_layers", num_layers)
        if embedding_size is not None:
            require_positive("embedding_size", embedding_size)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        if vocabulary is not None and len(vocabulary) != num_items:
            raise ValueError(f"the vocabulary has {len(vocabulary)} items, the model {num_items}")
        self.config = {
            "cell": cell,
            "num_items": num_items,
            "hidden_size": hidden_size,
            "k": k,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
            "dropout": dropout,
        }
        self.vocabulary = vocabulary
        self.num_items = num_items
        self.embedding = None if embedding_size is None else nn.Embedding(num_items, embedding_size)
        widths = [num_items if embedding_size is None else embedding_size] + [hidden_size] * (num_layers - 1)
        self.cells = nn.ModuleList(make_cell(cell, width, hidden_size, k) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, num_items)
        layers = [cell.state_shapes() for cell in self.cells]  # type: ignore[operator]  # ModuleList hides the type
        self.state_names = [f"{name}_l{number}" for number, states in enumerate(layers) for name in states]
        self.state_shapes = [list(shape) for states in layers for shape in states.values()]
        self.states_per_layer = len(layers[0])

    def forward(self, items: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Score the next item after every position of whole sequences.

        Args:
            items: (B, S) int64 ids in [0, V); B and S may be 0.
            state: tensors (B, *shape) as `state_shapes` gives them; None starts from zeros.

        Returns:
            logits (B, S, V), those at position t telling of the item at t + 1, and the state after position S - 1.

        Raises:
            ValueError: items or a state tensor has another shape or dtype.
            IndexError: an id lies outside [0, V).
        """
        if items.dim() != 2:
            raise ValueError(f"items must be (batch, steps), got {list(items.shape)}")
        return self._run(items, state, False)

    @torch.jit.export
    def step(self, items: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Consume one item per row: items (B,) int64 -> logits (B, V) of the item to follow, and the next state.

        Raises:
            ValueError: items or a state tensor has another shape or dtype.
            IndexError: an id lies outside [0, V).
        """
        if items.dim() != 1:
            raise ValueError(f"items must be (batch,), got {list(items.shape)}")
        return self._run(items, state, True)

    @torch.jit.export
    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the zero state for a batch, in the weights' dtype and on their device."""
        return [self.linear.weight.new_zeros([batch] + shape) for shape in self.state_shapes]

    def _run(self, items: Tensor, state: list[Tensor] | None, one_step: bool) -> tuple[Tensor, list[Tensor]]:
        if state is None:
            state = self.initial_state(items.size(0))
        self._check_state(items.size(0), state)
        x = self._embed(items)
        following: list[Tensor] = []
        n = self.states_per_layer
        for layer, cell in enumerate(self.cells):
            before = state[layer * n : (layer + 1) * n]
            if one_step:
                x, after = cell.step(cell.project(x), before)  # type: ignore[operator]
            else:
                x, after = cell.unroll(x, before)  # type: ignore[operator]
            x = self.dropout(x)
            following.extend(after)
        return self.linear(x), following

    def _embed(self, items: Tensor) -> Tensor:
        if items.dtype != torch.int64:
            raise ValueError(f"items must be int64, got {items.dtype}")
        if not torch.compiler.is_compiling():
            self._check_range(items)
        if self.embedding is not None:
            return self.embedding(items)  # type: ignore[no-any-return]
        return F.one_hot(items, self.num_items).to(self.linear.weight.dtype)

    def _check_range(self, items: Tensor) -> None:
        if items.device.type != "cpu" or items.numel() == 0:
            return  # on an accelerator the look-up itself refuses, without a wait here
        lowest, highest = int(items.min()), int(items.max())
        if lowest < 0 or highest >= self.num_items:
            wrong = lowest if lowest < 0 else highest
            raise IndexError(f"item id {wrong} is outside 0..{self.num_items - 1}")

    def _check_state(self, batch: int, state: list[Tensor]) -> None:
        if len(state) != len(self.state_shapes):
            raise ValueError(f"state must be {len(self.state_shapes)} tensors, got {len(state)}")
        for name, shape, given in zip(self.state_names, self.state_shapes, state):
            if list(given.shape) != [batch] + shape:
                raise ValueError(f"state {name} must be {[batch] + shape}, got {list(given.shape)}")
