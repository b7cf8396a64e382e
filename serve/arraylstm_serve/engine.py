"""The engine: every session's tensors, a row each, and the step graph that moves them.

What a device has to do is `Engine`; everything above it deals in slots, item ids and what a client reads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from arraylstm_serve.arrays import Doubles, Flags, Floats, Integers
from arraylstm_serve.bundle import Bundle, State
from arraylstm_serve.errors import StartupError
from arraylstm_serve.graph import CUDA, StepGraph, open_graph
from arraylstm_serve.predictions import Ranking, log_sum_exp, observe, rank, rank_each
from arraylstm_serve.runtime import onnxruntime as ort
from arraylstm_serve.settings import Settings

logger = logging.getLogger(__name__)

LOGITS = "logits"


class Step(NamedTuple):
    """What one step of B rows tells.

    Attributes:
        probabilities: (B,) float64, of each item before it was consumed; meaningless where the row was fresh.
        ranks: (B,) int64, likewise; 1 is the most likely.
        sound: (B,) bool, whether the model gave finite logits; where it did not, nothing was stored.
        rankings: the most likely next items of each row, as many as were asked for.
    """

    probabilities: Doubles
    ranks: Integers
    sound: Flags
    rankings: list[Ranking]


class Engine(Protocol):
    """A device's rows of recurrent state, each with the logits that its last step gave.

    Attributes:
        provider: the onnxruntime execution provider in use.
        device: what it runs on, in words.
        shapes: the shape of each tensor of a row, by name: `state_<name>` and `logits`, all float32.
    """

    provider: str
    device: str
    shapes: dict[str, tuple[int, ...]]

    def step(self, slots: Integers, items: Integers, reaches: Sequence[int]) -> Step:
        """Step different slots (B,) by one item (B,) each, and rank the next `reaches` (B) items of each.

        Nothing is stored if this raises.
        """

    def rank(self, slots: Integers, reach: int) -> list[Ranking]:
        """The `reach` most likely next items of each slot (B,)."""

    def clear(self, slot: int) -> None:
        """Set a slot to the initial state."""

    def copy(self, source: int, target: int) -> None:
        """Make one slot equal to another."""

    def read(self, slots: Integers) -> dict[str, Floats]:
        """The tensors (B, *shape) of slots (B,), by name."""

    def write(self, slots: Integers, tensors: dict[str, Floats]) -> None:
        """Store tensors (B, *shape), by name, into different slots (B,)."""

    def warm_up(self, max_batch: int) -> None:
        """Run batches of every size that is prepared for."""


class HostEngine:
    """An engine whose rows lie in the host's memory, beside the CPU that steps them.

    The operating system commits a row's memory when the row is first used.

    Args:
        graph: the step graph.
        slots: how many rows.
        states: the states a row holds.
        num_items: V, the width of the logits.
    """

    def __init__(self, graph: StepGraph, slots: int, states: Sequence[State], num_items: int) -> None:
        self._graph = graph
        self.provider = graph.provider
        self.device = "CPU"
        self.shapes = row_shapes(states, num_items)
        self._rows = {name: np.zeros((slots, *shape), np.float32) for name, shape in self.shapes.items()}
        self._logits = self._rows[LOGITS]
        self._states = [rows for name, rows in self._rows.items() if name != LOGITS]
        self._log_sums = np.zeros(slots, np.float64)

    def step(self, slots: Integers, items: Integers, reaches: Sequence[int]) -> Step:
        """See `Engine.step`."""
        probabilities, ranks = observe(self._logits[slots], self._log_sums[slots], items)
        logits, states = self._graph.run(items, [rows[slots] for rows in self._states])
        log_sums = log_sum_exp(logits)
        sound = np.isfinite(log_sums)
        rankings = rank_each(logits, log_sums, np.where(sound, reaches, 0).tolist())
        if not sound.all():
            slots, logits, log_sums = slots[sound], logits[sound], log_sums[sound]
            states = [state[sound] for state in states]
        for rows, state in zip(self._states, states, strict=True):
            rows[slots] = state
        self._logits[slots] = logits
        self._log_sums[slots] = log_sums
        return Step(probabilities, ranks, sound, rankings)

    def rank(self, slots: Integers, reach: int) -> list[Ranking]:
        """See `Engine.rank`."""
        return rank(self._logits[slots], self._log_sums[slots], reach)

    def clear(self, slot: int) -> None:
        """See `Engine.clear`."""
        for rows in self._states:
            rows[slot] = 0

    def copy(self, source: int, target: int) -> None:
        """See `Engine.copy`."""
        for rows in self._rows.values():
            rows[target] = rows[source]
        self._log_sums[target] = self._log_sums[source]

    def read(self, slots: Integers) -> dict[str, Floats]:
        """See `Engine.read`."""
        return {name: rows[slots] for name, rows in self._rows.items()}

    def write(self, slots: Integers, tensors: dict[str, Floats]) -> None:
        """See `Engine.write`."""
        for name, rows in self._rows.items():
            rows[slots] = tensors[name]
        self._log_sums[slots] = log_sum_exp(tensors[LOGITS])

    def warm_up(self, max_batch: int) -> None:
        """See `Engine.warm_up`."""
        self._graph.warm_up(max_batch)


def row_shapes(states: Sequence[State], num_items: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that an engine keeps of a session, by name."""
    return {f"state_{state.name}": state.shape for state in states} | {LOGITS: (num_items,)}


def row_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of one row: its tensors, and the log-sum-exp of its logits."""
    return sum(4 * int(np.prod(shape)) for shape in shapes.values()) + 8


def open_engine(bundle: Bundle, settings: Settings, slots: int) -> Engine:
    """Open the bundle's step graph on the device asked for, with memory for so many sessions.

    Raises:
        StartupError: the graph cannot be had, or not on that device.
        MemoryError: the host cannot hold that many rows.
    """
    return open_accelerator(bundle, settings, slots) or open_host(bundle, settings, slots)


def open_host(bundle: Bundle, settings: Settings, slots: int) -> HostEngine:
    """Open the bundle's step graph on the CPU; see `open_engine`."""
    if settings.tf32 or settings.gpu_memory is not None:
        raise StartupError("--tf32 and --gpu-memory are for a GPU, but the model runs on the CPU; leave them out.")
    graph = open_graph(bundle, settings.threads)
    return HostEngine(graph, slots, bundle.manifest.states, len(bundle.vocabulary))


def open_accelerator(bundle: Bundle, settings: Settings, slots: int) -> Engine | None:
    """Open the bundle's step graph on the GPU, or None where the CPU is asked for, or is all that there is.

    Raises:
        StartupError: the GPU is asked for and cannot be had.
    """
    if settings.device == "cpu" or (settings.device == "auto" and CUDA not in ort.get_available_providers()):
        return None
    from arraylstm_serve.device_engine import open_cuda  # it takes what comes with the extra serve-gpu alone

    open_graph(bundle, settings.threads)  # which is held against the manifest, whatever is made of it for the GPU
    try:
        return open_cuda(bundle, settings, slots)
    except StartupError as error:
        if settings.device == "cuda":
            raise
        logger.warning("--device auto takes the CPU: %s", error)
        return None
