"""What can be exported and served: models that take item ids and score the next item, with their state explicit."""

from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells.base import clear_past
from arraylstm.checks import require_lengths, require_state
from arraylstm.stack import Stack
from arraylstm.vocabulary import Vocabulary, require_labels


class ItemModel(nn.Module):
    """A stack of cells between an embedding of items and a score for each item.

    A subclass gives the parts (`embed`, `layers`, `score`, `like`); whole sequences, single steps, scripting, export,
    parity checks and serving follow.

    State is a list of tensors, batch axis first, in the order of `state_names`. A call takes it and returns the next
    one; it never writes to it.

    `trained_on` says, as values for JSON, what the model was trained on. Checkpoints keep it; no answer depends on it.

    Args:
        layers: the stack, for its names and shapes; the subclass keeps it under a name of its own.
        num_items: V.
        vocabulary: the items' labels; without one, items are the integers 0 to V-1.
        config: the constructor's arguments without the vocabulary, as checkpoints and manifests keep them; it has
            `cell` and `num_items`.

    Raises:
        ValueError: a vocabulary of another size.
    """

    config: dict[str, Any]
    num_items: int
    state_names: list[str]
    state_shapes: list[list[int]]
    diagnostic_names: list[str]
    diagnostic_shapes: list[list[int]]

    def __init__(self, layers: Stack, num_items: int, vocabulary: Vocabulary | None, config: dict[str, Any]) -> None:
        super().__init__()
        require_labels(vocabulary, num_items)
        self.config = config
        self.num_items = num_items
        self.vocabulary = vocabulary
        self.trained_on: dict[str, Any] | None = None
        self.state_names, self.state_shapes = layers.state_names, layers.state_shapes
        self.diagnostic_names, self.diagnostic_shapes = layers.diagnostic_names, layers.diagnostic_shapes
        self.padding = -1  # the target that is not counted

    @classmethod
    def from_config(cls, config: dict[str, Any], vocabulary: Vocabulary | None) -> "ItemModel":
        """Construct the model that has this `config` and vocabulary."""
        raise NotImplementedError

    def without_inert(self) -> dict[str, Any]:
        """Return `config` with every argument that changes no answer at its default, for models to be compared by."""
        return self.config

    def prepare(self) -> None:
        """Lay out the weights for the fastest inference; the cells do so by themselves, see `Cell.prepare`."""

    # -- the parts ------------------------------------------------------------------------------------------

    def embed(self, items: Tensor) -> Tensor:
        """Return what the lowest layer receives (..., I) for item ids (...)."""
        raise NotImplementedError

    @property
    @no_type_check  # a script infers the type, and takes no annotation for it
    def layers(self):  # noqa: ANN201
        """The stack, under the name that every model has for it."""
        raise NotImplementedError

    def score(self, h: Tensor, items: Tensor) -> Tensor:
        """Return the logits (..., V) for the highest layer's output (..., H) after it has read the items (...)."""
        raise NotImplementedError

    def like(self) -> Tensor:
        """Return a weight, for its dtype and device."""
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return what `fit` minimises: the nats of logits (N, V), summed over the targets (N,) but not over padding."""
        return F.cross_entropy(logits, targets, ignore_index=self.padding, reduction="sum")

    # -- what follows ---------------------------------------------------------------------------------------

    @torch.jit.export
    def unroll(
        self, items: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Score the next item after every position of whole sequences.

        Args:
            items: (B, S) int64 ids in [0, V); B and S may be 0, and ids from a row's length on are ignored.
            state: tensors (B, *shape) as `state_shapes` gives them; None starts from `initial_state`.
            lengths: (B,) int64, how many of the S items each row has; None means all.

        Returns:
            logits (B, S, V), where position t scores the item at t + 1, zero from a row's length on, and every row's
            state after its last item.

        Raises:
            ValueError: items, a state tensor or lengths has another shape or dtype, or a length lies outside 0 to S.
            IndexError: an id lies outside [0, V).
        """
        logits, following, _ = self.unroll_with_diagnostics(items, state, lengths)
        return logits, following

    @torch.jit.export
    def unroll_with_diagnostics(
        self, items: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `unroll` does, and return the diagnostics (B, S, *shape) too, zero past lengths."""
        if items.dim() != 2:
            raise ValueError(f"items must be (batch, steps), got {list(items.shape)}")
        if lengths is not None:
            require_lengths(lengths, items.size(0), items.size(1))
            items = clear_past(items, lengths)
        x = self._embed(items)
        x, following, diagnostics = self.layers.unroll(x, self._started(items.size(0), state), lengths)
        logits = self.score(x, items)
        if lengths is not None:
            logits = clear_past(logits, lengths)
            diagnostics = [clear_past(diagnostic, lengths) for diagnostic in diagnostics]
        return logits, following, diagnostics

    @torch.jit.export
    def step(self, items: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Consume one item per row: items (B,) int64 -> logits (B, V) of the item to follow, and the next state.

        Raises:
            ValueError: items or a state tensor has another shape or dtype.
            IndexError: an id lies outside [0, V).
        """
        logits, following, _ = self.step_with_diagnostics(items, state)
        return logits, following

    @torch.jit.export
    def step_with_diagnostics(
        self, items: Tensor, state: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `step` does, and return the diagnostics (B, *shape) as `diagnostic_shapes` gives them."""
        if items.dim() != 1:
            raise ValueError(f"items must be (batch,), got {list(items.shape)}")
        x = self._embed(items)
        x, following, diagnostics = self.layers.step(x, self._started(items.size(0), state))
        return self.score(x, items), following, diagnostics

    @torch.jit.export
    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the state that sequences start from, for a batch, in the weights' dtype and on their device."""
        state: list[Tensor] = self.layers.initial_state(batch, self.like())
        return state

    def _embed(self, items: Tensor) -> Tensor:
        if items.dtype != torch.int64:
            raise ValueError(f"items must be int64, got {items.dtype}")
        if not torch.compiler.is_compiling():
            self._check_range(items)
        return self.embed(items)

    def _check_range(self, items: Tensor) -> None:
        if items.device.type != "cpu" or items.numel() == 0:
            return  # on an accelerator the look-up itself refuses them, and nothing waits here
        lowest, highest = int(items.min()), int(items.max())
        if lowest < 0 or highest >= self.num_items:
            wrong = lowest if lowest < 0 else highest
            raise IndexError(f"item id {wrong} is outside 0..{self.num_items - 1}")

    def _started(self, batch: int, state: list[Tensor] | None) -> list[Tensor]:
        if state is None:
            return self.initial_state(batch)
        require_state(state, batch, self.state_names, self.state_shapes)
        return state
