"""The one way in which every form of a model is run: on ragged batches of sequences."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from arraylstm_export.arrays import Array, Result
from arraylstm_export.interface import Interface


class Runner(ABC):
    """A form of the model that can be run.

    Attributes:
        exact_rows: whether a row's results are the same bits whatever else is in the batch, and however its steps are
            cut into calls.
        why_not_exact: why that is not promised here, for a form that promises it elsewhere.
        needs_a_step: whether S must be at least 1.
    """

    exact_rows: bool = False
    why_not_exact: str | None = None
    needs_a_step: bool = False

    @abstractmethod
    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences.

        Args:
            items: (B, S) int64.
            lengths: (B) int64, 0 to S; items from a row's length on are ignored.
            state: an array (B, *shape) per state.
        """


class StepRunner(Runner):
    """A form that takes one step at a time: it runs whole sequences as a client of such a form does."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface

    @abstractmethod
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row: (B) -> logits (B, V) and diagnostics, next state."""

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run the sequences step by step, each step with the rows that have not reached their length."""
        kept = [np.array(tensor) for tensor in state]
        shapes = [(self.interface.num_items,), *(diagnostic.shape for diagnostic in self.interface.diagnostics)]
        series = [np.zeros((*items.shape, *shape), np.float32) for shape in shapes]
        for t in range(max(lengths)):
            alive = np.flatnonzero(t < lengths)
            found, following = self.step(items[alive, t], [tensor[alive] for tensor in kept])
            for whole, new in zip(series, found, strict=True):
                whole[alive, t] = new
            for tensor, new in zip(kept, following, strict=True):
                tensor[alive] = new
        return series, kept


def as_result(outputs: list[Array], interface: Interface) -> Result:
    """Return the outputs of a graph, which come as logits, states, diagnostics, as series and states."""
    logits, *rest = outputs
    states = len(interface.states)
    return [logits, *rest[states:]], rest[:states]
