"""What every form is compared with: the model's own `forward` in float64, and how far float32 can follow it.

A model that chooses lanes, by an argmax over gates, may find two gates so nearly equal that float32 cannot tell which
one is larger in float64: a tie. Ties are found without knowing the cell. Twins of the model are run on the row as well:
the model in float32, and the model in float64 with the result of every operation changed at random by about as much as
float32 leaves open and runtimes round differently. From the step at which a twin differs from the reference, a form in
float32 cannot be expected to agree with it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arraylstm import ItemModel
from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.eager import Whole
from arraylstm_export.interface import Interface
from arraylstm_export.parity.differences import Largest, differences, first_over, rows_of, worst
from arraylstm_export.parity.scenarios import Scenario
from arraylstm_export.parity.schedules import at_once

TWINS = 32  # each may choose differently at a tie; most rows need two or three
_UNRESOLVED = 4 * torch.finfo(torch.float32).eps
_UNDECIDED_ABOVE = 1e-5
_FACTORS = 8_191  # a prime, so that the rows of a tensor get different ones


@dataclass(frozen=True)
class Verdict:
    """The judgement of N single steps: the differences of each tensor, and which steps (N, bool) involve ties."""

    found: list[Largest]
    tied: Array
    """The form made another choice at a tie: it agrees with a twin that differs from the reference.

    The differences of these steps are the differences from that twin.
    """
    undecided: Array
    """A twin differs from the reference, and the form agrees with neither."""


class Reference:
    """The model in float64."""

    def __init__(self, model: ItemModel, interface: Interface) -> None:
        self.interface = interface
        self._float32 = Whole(model, interface)
        self._run = Whole(copy.deepcopy(model).double(), interface, torch.float64)

    def __call__(self, scenario: Scenario) -> Result:
        """Return the scenario's logits, diagnostics and final states in float64."""
        return at_once(self._run, scenario)

    def first_undecided(self, scenario: Scenario, failing: Array, tolerance: float) -> Array:
        """Return the first step of every row at which a twin differs from the reference, no later than the failing one.

        A twin differs where its logits or diagnostics, or at a row's last step its state, are off by more than the
        tolerance and 1e-5.

        Args:
            scenario: a batch of S steps.
            failing: for every row (B) the step at which a form differs.
            tolerance: largest difference that passes.

        Returns:
            Steps (B); S for a row where no twin differs so early.
        """
        expected = self(scenario)
        first = np.full(len(failing), scenario.items.shape[1])
        for twin in self._twins():
            pending = np.flatnonzero(first > failing)
            if len(pending) == 0:
                break
            rows = scenario.rows(pending)
            found = differences(twin(rows), rows_of(expected, pending))
            first[pending] = first_over(found, rows.lengths, max(tolerance, _UNDECIDED_ABOVE))
        return np.where(first > failing, scenario.items.shape[1], first)

    def judge(self, steps: Scenario, actual: Result, tolerance: float) -> Verdict:
        """Compare single steps, a batch with S = 1, with the reference and, where they differ, with its twins."""
        expected = self(steps)
        found = differences(actual, expected)
        tied, near_tie = np.zeros((2, len(steps.items)), bool)
        low, high = ([*map(np.copy, (*expected[0], *expected[1]))] for _ in range(2))
        for twin in self._twins():
            pending = np.flatnonzero(worst(found) > tolerance)
            if len(pending) == 0:
                break
            other = twin(steps.rows(pending))
            differs = worst(differences(other, rows_of(expected, pending))) > max(tolerance, _UNDECIDED_ABOVE)
            from_twin = differences(rows_of(actual, pending), other)
            agrees = differs & (worst(from_twin) <= tolerance)
            for one, another in zip(found, from_twin, strict=True):
                one.replace(pending[agrees], another, agrees)
            tied[pending] = agrees
            near_tie[pending] |= differs
            for lowest, highest, values in zip(low, high, (*other[0], *other[1]), strict=True):
                lowest[pending] = np.minimum(lowest[pending], values)
                highest[pending] = np.maximum(highest[pending], values)
        return Verdict(found, tied, near_tie & ~tied & _plausible((*actual[0], *actual[1]), low, high))

    def _twins(self) -> Iterator[Callable[[Scenario], Result]]:
        yield lambda scenario: at_once(self._float32, scenario)
        for seed in range(TWINS):
            yield partial(self._with_noise, seed)

    def _with_noise(self, seed: int, scenario: Scenario) -> Result:
        with RoundingNoise(seed):
            return self(scenario)


def _plausible(actual: Sequence[Array], low: Sequence[Array], high: Sequence[Array]) -> Array:
    """Tell which rows may be another combination of choices: every value is at most twice the largest of any twin.

    `low` and `high` hold the smallest and the largest values of the reference and its twins.
    """
    plausible = np.ones(len(low[0]), bool)
    for values, lowest, highest in zip(actual, low, high, strict=True):
        largest, known = (_largest_size(tensors) for tensors in ((values,), (lowest, highest)))
        plausible &= largest <= 2 * np.maximum(1.0, known)
    return plausible


def _largest_size(tensors: Sequence[Array]) -> Array:
    """Return every row's largest absolute value in any of the tensors; NaN where there is one."""
    sizes: Array = np.max([np.abs(tensor).reshape(len(tensor), -1).max(1, initial=0.0) for tensor in tensors], 0)
    return sizes


class RoundingNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Changes the result of every operation at random by about as much as float32 cannot resolve."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rng = torch.Generator().manual_seed(seed)
        factors = torch.empty(_FACTORS, dtype=torch.float64)
        factors.uniform_(1 - _UNRESOLVED, 1 + _UNRESOLVED, generator=self.rng)
        self.cycle = factors.repeat(2)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        computed = isinstance(result, torch.Tensor) and result.is_floating_point()
        if not computed or func.is_view or func._schema.is_mutable:
            return result
        return result * self._draw(result.numel()).view(result.shape).to(result.dtype)

    def _draw(self, count: int) -> torch.Tensor:
        """Return factors from a random place in their cycle, which takes less time than drawing new ones."""
        start = int(torch.randint(_FACTORS, (), generator=self.rng))
        cycle = self.cycle if count <= _FACTORS else self.cycle.repeat(count // len(self.cycle) + 2)
        return cycle[start : start + count]
