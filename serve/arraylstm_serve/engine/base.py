"""The interface of an engine: rows of recurrent state, and steps that advance them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, Protocol

import numpy as np

from arraylstm_serve.arrays import Doubles, Flags, Floats, Integers
from arraylstm_serve.bundle.manifest import ZEROS, State
from arraylstm_serve.engine.ranking import Ranking

LOGITS = "logits"


class Step(NamedTuple):
    """The results of one step of B rows.

    Attributes:
        probabilities: (B,) float64, the probability that each source row gave to its item. It means nothing if the
            source is the initial row.
        ranks: (B,) int64, the rank that each source row gave to its item; 1 is the most likely, and the unknown item
            comes behind all others (see `ranking.observe`). It means nothing if the source is the initial row.
        finite: (B,) bool, whether the new logits are finite; if not, the target row holds garbage.
        rankings: the most likely next items of each row.
    """

    probabilities: Doubles
    ranks: Integers
    finite: Flags
    rankings: list[Ranking]


class Engine(Protocol):
    """Keeps rows of recurrent state on a device. A row also has the logits of its last step.

    Row 0 (`slots.INITIAL`) holds the initial state; nothing writes to it.

    Attributes:
        provider: the onnxruntime execution provider in use.
        device: a description of the device, for people.
        shapes: the shape of each tensor of a row, by name: `state_<name>` and `logits`, all float32.
    """

    provider: str
    device: str
    shapes: dict[str, tuple[int, ...]]

    def step(self, sources: Integers, targets: Integers, items: Integers, depths: Sequence[int]) -> Step:
        """Step B rows by one item each, and rank the most likely next items.

        Args:
            sources: (B,) the rows to read. They do not change, unless they are also targets.
            targets: (B,) the rows to write, all different. A target may be its own source, but not that of another.
            items: (B,) item ids.
            depths: (B) how many of the most likely next items to rank for each row.
        """

    def rank(self, slots: Integers, depth: int) -> list[Ranking]:
        """Return the `depth` most likely next items of each slot (B,)."""

    def read(self, slots: Integers) -> dict[str, Floats]:
        """Return the tensors (B, *shape) of slots (B,), by name."""

    def write(self, slots: Integers, tensors: dict[str, Floats]) -> None:
        """Store tensors (B, *shape), by name, in slots (B,), which are all different."""

    def warm_up(self, max_batch: int) -> None:
        """Run a batch of each size that the engine has prepared for."""


def row_shapes(states: Sequence[State], num_items: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of an engine's row, by name."""
    return {f"state_{state.name}": state.shape for state in states} | {LOGITS: (num_items,)}


def initial_row(states: Sequence[State], num_items: int) -> dict[str, Floats]:
    """Return the tensors (1, *shape) that a session starts from, by name; its logits are zeros, which nobody reads."""
    row = {name: np.zeros((1, *shape), np.float32) for name, shape in row_shapes(states, num_items).items()}
    for state in states:
        if state.initial != ZEROS:
            row[f"state_{state.name}"][:] = np.reshape(state.initial, state.shape)
    return row


def row_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Return the bytes of one row: its tensors, and the log-sum-exp of its logits."""
    return sum(4 * prod(shape) for shape in shapes.values()) + 8
