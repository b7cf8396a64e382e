"""What every form is measured against: the model's own `forward` in float64, and how far float32 can follow it.

Where a model chooses (an argmax over nearly equal gates), float32 cannot tell which choice float64 makes. Such rows are
found without knowing the cell: twins of the model are run on the row too, itself in float32, and itself with the result
of every operation moved by about what float32 leaves open and runtimes round differently. Where one of them parts from
the reference, float32 cannot be held to it.
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
from arraylstm_export.differences import Largest, differences, first_over, rows_of, worst
from arraylstm_export.runners import Array, Result, Whole
from arraylstm_export.scenarios import Scenario, at_once
from arraylstm_export.signature import Interface

TWINS = 32  # as many ways for ties to fall; most rows need two or three
_UNRESOLVED = 4 * torch.finfo(torch.float32).eps
_UNDECIDED_ABOVE = 1e-5
_FACTORS = 8_191  # a prime: no two rows of a tensor meet the same ones


@dataclass(frozen=True)
class Verdict:
    """Single steps judged: per tensor their differences (N, ...), and which of them (N, bool) hang on ties."""

    found: list[Largest]
    tied: Array
    """A tie decided otherwise: the result of a twin which parts from the reference; the differences are from it."""
    undecided: Array
    """Neither the reference's result nor a twin's, though some twin parts from the reference."""


class Reference:
    """The model in float64."""

    def __init__(self, model: ItemModel, interface: Interface) -> None:
        self.interface = interface
        self._float32 = Whole(model, interface)
        self._run = Whole(copy.deepcopy(model).double(), interface, torch.float64)

    def __call__(self, scenario: Scenario) -> Result:
        """Return the scenario's logits, diagnostics and final states in float64."""
        return at_once(self._run, scenario)

    def first_parting(self, scenario: Scenario, failing: Array, tolerance: float) -> Array:
        """Return for every row where a twin parts from the reference: a step up to its failing one (B), else S.

        A twin parts where its logits or diagnostics, or at a row's last step its state, differ by more than the tolerance
        (and 1e-5).
        """
        expected = self(scenario)
        parting = np.full(len(failing), scenario.items.shape[1])
        for twin in self._twins():
            pending = np.flatnonzero(parting > failing)
            if len(pending) == 0:
                break
            rows = scenario.rows(pending)
            found = differences(twin(rows), rows_of(expected, pending))
            parting[pending] = first_over(found, rows.lengths, max(tolerance, _UNDECIDED_ABOVE))
        return np.where(parting > failing, scenario.items.shape[1], parting)

    def judge(self, steps: Scenario, actual: Result, tolerance: float) -> Verdict:
        """Compare single steps, a batch with S = 1, with the reference's and, where they differ, with its twins'."""
        expected = self(steps)
        found = differences(actual, expected)
        tied, hangs = np.zeros((2, len(steps.items)), bool)
        low, high = ([*map(np.copy, (*expected[0], *expected[1]))] for _ in range(2))
        for twin in self._twins():
            pending = np.flatnonzero(worst(found) > tolerance)
            if len(pending) == 0:
                break
            other = twin(steps.rows(pending))
            parts = worst(differences(other, rows_of(expected, pending))) > max(tolerance, _UNDECIDED_ABOVE)
            beside = differences(rows_of(actual, pending), other)
            met = parts & (worst(beside) <= tolerance)
            for one, another in zip(found, beside, strict=True):
                one.replace(pending[met], another, met)
            tied[pending] = met
            hangs[pending] |= parts
            for lowest, highest, values in zip(low, high, (*other[0], *other[1]), strict=True):
                lowest[pending] = np.minimum(lowest[pending], values)
                highest[pending] = np.maximum(highest[pending], values)
        return Verdict(found, tied, hangs & ~tied & _likely((*actual[0], *actual[1]), low, high))

    def _twins(self) -> Iterator[Callable[[Scenario], Result]]:
        yield lambda scenario: at_once(self._float32, scenario)
        for seed in range(TWINS):
            yield partial(self._moved, seed)

    def _moved(self, seed: int, scenario: Scenario) -> Result:
        with MovedResults(seed):
            return self(scenario)


def _likely(actual: Sequence[Array], low: Sequence[Array], high: Sequence[Array]) -> Array:
    """Tell which rows may be another combination of ties: no number of theirs is of a size that no twin comes near."""
    likely = np.ones(len(low[0]), bool)
    for values, lowest, highest in zip(actual, low, high, strict=True):
        largest, known = (_largest_size(tensors) for tensors in ((values,), (lowest, highest)))
        likely &= largest <= 2 * np.maximum(1.0, known)
    return likely


def _largest_size(tensors: Sequence[Array]) -> Array:
    """Return every row's largest absolute value in any of the tensors; NaN where one is."""
    sizes: Array = np.max([np.abs(tensor).reshape(len(tensor), -1).max(1, initial=0.0) for tensor in tensors], 0)
    return sizes


class MovedResults(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Moves the result of every operation at random by what float32 arithmetic does not resolve."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = torch.Generator().manual_seed(seed)
        self.factors = torch.empty(_FACTORS, dtype=torch.float64)
        self.factors.uniform_(1 - _UNRESOLVED, 1 + _UNRESOLVED, generator=self.source)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        computed = isinstance(result, torch.Tensor) and result.is_floating_point()
        if not computed or func.is_view or func._schema.is_mutable:
            return result
        return result * self._draw(result.numel()).view(result.shape).to(result.dtype)

    def _draw(self, count: int) -> torch.Tensor:
        """Return so many factors from a place in their cycle drawn at random: drawing them all anew takes longer."""
        start = int(torch.randint(_FACTORS, (), generator=self.source))
        return self.factors.repeat(count // _FACTORS + 2)[start : start + count]
