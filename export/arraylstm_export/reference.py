"""What every form is measured against: the model's own `forward` in float64, and how far float32 can follow it.

Where a model chooses (an argmax over nearly equal gates), float32 cannot tell which choice float64 makes. Such rows are
found without knowing the cell: twins of the model are run on the row too, itself in float32, and itself with the result
of every operation moved by about what float32 leaves open and runtimes round differently. Where one of them parts from
the reference, float32 cannot be held to it.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arraylstm import ItemModel
from arraylstm_export.differences import Largest, differences, largest, rows_of, worst
from arraylstm_export.runners import Array, Result, Whole
from arraylstm_export.scenarios import Scenario, at_once
from arraylstm_export.signature import Interface

TWINS = 8
TWINS_OF_A_STEP = 32  # several ties in one step fall in many ways, and one step is cheap
_UNRESOLVED = 4 * torch.finfo(torch.float32).eps
_UNDECIDED_ABOVE = 1e-5


@dataclass(frozen=True)
class Verdict:
    """Single steps judged: per tensor their differences (N), and which of them (N, bool) are excused, and why."""

    found: list[Largest]
    tied: Array
    """Not the reference's result, but that of a twin which parts from it: a tie decided otherwise."""
    undecided: Array
    """No twin's result either, though some twin parts from the reference."""


class Reference:
    """The model in float64."""

    def __init__(self, model: ItemModel, interface: Interface) -> None:
        self.interface = interface
        self._float32 = Whole(model, interface)
        self._run = Whole(copy.deepcopy(model).double(), interface, torch.float64)

    def __call__(self, scenario: Scenario) -> Result:
        """Return the scenario's logits, traces and final states in float64."""
        return at_once(self._run, scenario)

    def decided_steps(self, scenario: Scenario, tolerance: float) -> Array:
        """Return for every row how many of its steps float32 can be held to: S, or those before a twin parts.

        A twin parts where its logits or traces, or after the last step its state, differ by more than the tolerance
        (and 1e-5).
        """
        series, state = self(scenario)
        rows, steps = scenario.items.shape
        last = np.maximum(scenario.lengths - 1, 0)
        limit = max(tolerance, _UNDECIDED_ABOVE)
        decided = np.full(rows, steps)
        for twin in self._twins(TWINS):
            reach = int(decided.max())
            if reach == 0:
                break
            other_series, other_state = twin(scenario.until(reach))
            pairs = zip(other_series, [whole[:, :reach] for whole in series], strict=True)
            parted = np.ones((rows, reach + 1), bool)
            apart = np.max([largest(ours, theirs, 2).values for ours, theirs in pairs], 0)
            parted[:, :reach] = apart > limit
            if reach == steps:
                parted[np.arange(rows), last] |= worst(differences(([], other_state), ([], state))) > limit
            decided = np.minimum(decided, parted.argmax(1))
        return decided

    def judge(self, steps: Scenario, actual: Result, tolerance: float) -> Verdict:
        """Compare single steps, a batch with S = 1, with the reference's and, where they differ, with its twins'."""
        expected = self(steps)
        found = differences(actual, expected)
        tied, hangs = np.zeros((2, len(steps.items)), bool)
        for twin in self._twins(TWINS_OF_A_STEP):
            pending = np.flatnonzero((worst(found) > tolerance) & ~tied)
            if len(pending) == 0:
                break
            other = twin(steps.rows(pending))
            parts = worst(differences(other, rows_of(expected, pending))) > max(tolerance, _UNDECIDED_ABOVE)
            tied[pending] = parts & (worst(differences(rows_of(actual, pending), other)) <= tolerance)
            hangs[pending] |= parts
        return Verdict(found, tied, hangs & ~tied)

    def _twins(self, count: int) -> Iterator[Callable[[Scenario], Result]]:
        yield lambda scenario: at_once(self._float32, scenario)
        for seed in range(count):
            yield partial(self._moved, seed)

    def _moved(self, seed: int, scenario: Scenario) -> Result:
        with MovedResults(seed):
            return self(scenario)


class MovedResults(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Moves the result of every operation at random by what float32 arithmetic does not resolve."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        computed = isinstance(result, torch.Tensor) and result.is_floating_point()
        if not computed or func.is_view or func._schema.is_mutable:
            return result
        noise = torch.rand(result.shape, generator=self.source, dtype=result.dtype) * 2 - 1
        return result * (1 + _UNRESOLVED * noise)
