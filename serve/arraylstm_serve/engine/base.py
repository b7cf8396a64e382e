"""What the server needs of whatever runs the model: rows of recurrent state, and steps that move them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from arraylstm_serve.arrays import Doubles, Flags, Floats, Integers
from arraylstm_serve.bundle.manifest import State
from arraylstm_serve.engine.ranking import Ranking

LOGITS = "logits"


class Step(NamedTuple):
    """What one step tells of its B rows.

    Attributes:
        probabilities: (B,) float64, of each item before it was consumed; meaningless from the initial row.
        ranks: (B,) int64, likewise; 1 is the most likely.
        sound: (B,) bool, whether the model gave finite logits; where it did not, the target holds garbage.
        rankings: the most likely next items of each row, as many as were asked for.
    """

    probabilities: Doubles
    ranks: Integers
    sound: Flags
    rankings: list[Ranking]


class Engine(Protocol):
    """A device's rows of recurrent state, each with the logits that its last step gave.

    Row 0 (`slots.INITIAL`) is the initial state; nothing writes it.

    Attributes:
        provider: the onnxruntime execution provider in use.
        device: what it runs on, in words.
        shapes: the shape of each tensor of a row, by name: `state_<name>` and `logits`, all float32.
    """

    provider: str
    device: str
    shapes: dict[str, tuple[int, ...]]

    def step(self, sources: Integers, targets: Integers, items: Integers, reaches: Sequence[int]) -> Step:
        """Step rows by one item (B,) each, and rank the `reaches` (B) most likely next items of each.

        Args:
            sources: (B,) the rows to read; they stay as they are, unless they are targets too.
            targets: (B,) different rows to write; a row may be its own source, but not another one's.
            items: (B,) item ids.
            reaches: B numbers of items to rank.
        """

    def rank(self, slots: Integers, reach: int) -> list[Ranking]:
        """The `reach` most likely next items of each slot (B,)."""

    def read(self, slots: Integers) -> dict[str, Floats]:
        """The tensors (B, *shape) of slots (B,), by name."""

    def write(self, slots: Integers, tensors: dict[str, Floats]) -> None:
        """Store tensors (B, *shape), by name, into different slots (B,)."""

    def warm_up(self, max_batch: int) -> None:
        """Run batches of every size that is prepared for."""


def row_shapes(states: Sequence[State], num_items: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that an engine keeps of a session, by name."""
    return {f"state_{state.name}": state.shape for state in states} | {LOGITS: (num_items,)}


def row_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of one row: its tensors, and the log-sum-exp of its logits."""
    return sum(4 * int(np.prod(shape)) for shape in shapes.values()) + 8
