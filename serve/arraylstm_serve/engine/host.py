"""The engine on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.bundle.manifest import State
from arraylstm_serve.engine.base import LOGITS, Step, initial_row, row_shapes
from arraylstm_serve.engine.ranking import Ranking, log_sum_exp, observe, rank, rank_each
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.engine.step_graph import StepGraph


class HostEngine:
    """An engine that keeps its rows in the host's memory; the CPU steps them.

    The operating system commits a row's memory when the row is first used.

    Args:
        graph: the step graph.
        slots: how many rows to keep.
        states: the states that a row has.
        num_items: V, the width of the logits.
        unknown: the id of the unknown item; None if there is none.
    """

    def __init__(
        self, graph: StepGraph, slots: int, states: Sequence[State], num_items: int, unknown: int | None = None
    ) -> None:
        self._graph = graph
        self._unknown = unknown
        self.provider = graph.provider
        self.device = "CPU"
        self.shapes = row_shapes(states, num_items)
        self._rows = {name: np.zeros((slots, *shape), np.float32) for name, shape in self.shapes.items()}
        self._logits = self._rows[LOGITS]
        self._states = [rows for name, rows in self._rows.items() if name != LOGITS]
        self._log_sums = np.zeros(slots, np.float64)
        self.write(np.array([INITIAL]), initial_row(states, num_items))

    def step(self, sources: Integers, targets: Integers, items: Integers, depths: Sequence[int]) -> Step:
        """See `Engine.step`."""
        probabilities, ranks = observe(self._logits[sources], self._log_sums[sources], items, self._unknown)
        logits, states = self._graph.run(items, [rows[sources] for rows in self._states])
        log_sums = log_sum_exp(logits)
        finite = np.isfinite(log_sums)
        rankings = rank_each(logits, log_sums, np.where(finite, depths, 0).tolist())
        for rows, state in zip(self._states, states, strict=True):
            rows[targets] = state
        self._logits[targets] = logits
        self._log_sums[targets] = log_sums
        return Step(probabilities, ranks, finite, rankings)

    def rank(self, slots: Integers, depth: int) -> list[Ranking]:
        """See `Engine.rank`."""
        return rank(self._logits[slots], self._log_sums[slots], depth)

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
