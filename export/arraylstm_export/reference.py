"""What every form is measured against: the model's own `forward` in float64, and how far float32 can follow it.

Where a model chooses (an argmax over nearly equal gates), float32 cannot tell which choice float64 makes. Such rows are
found without knowing the cell: twins of the model, itself in float32 and copies whose weights are moved by what
float32 arithmetic cannot resolve, are run on the row too; where one of them parts from the reference, the row is
*undecided*.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch

from arraylstm import NextItemModel
from arraylstm_export.runners import Array, Result, Whole
from arraylstm_export.scenarios import Scenario, at_once
from arraylstm_export.signature import states_of

TWINS = 16
_UNRESOLVED = 16 * torch.finfo(torch.float32).eps
_UNDECIDED_ABOVE = 1e-5


class Reference:
    """The model in float64."""

    def __init__(self, model: NextItemModel) -> None:
        self.names = ["logits", *(state.output.name for state in states_of(model))]
        self._float32 = Whole(model)
        self._module = copy.deepcopy(model).double()
        self._run = Whole(self._module, torch.float64)

    def __call__(self, scenario: Scenario) -> Result:
        """Return the scenario's logits and final states in float64."""
        return at_once(self._run, scenario)

    def undecided(self, scenario: Scenario, tolerance: float) -> Array:
        """Tell for every row whether a twin parts from the reference by more than the tolerance (at least 1e-5)."""
        expected = self(scenario)
        undecided = np.zeros(len(scenario.items), bool)
        for twin in self._twins():
            undecided |= largest_by_row(at_once(twin, scenario), expected) > max(tolerance, _UNDECIDED_ABOVE)
            if undecided.all():
                break
        return undecided

    def _twins(self) -> Iterator[Whole]:
        yield self._float32
        for seed in range(TWINS):
            yield self._moved(seed)

    def _moved(self, seed: int) -> Whole:
        twin = copy.deepcopy(self._module)
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in twin.parameters():
                noise = torch.rand(weight.shape, generator=source, dtype=weight.dtype) * 2 - 1
                weight.mul_(1 + _UNRESOLVED * noise)
        return Whole(twin, torch.float64)


def difference(actual: Array, expected: Array) -> Array:
    """Return |a - b| / max(1, |b|), infinite where a is NaN."""
    relative = np.abs(actual.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return np.asarray(np.nan_to_num(relative, nan=np.inf))


def largest_by_row(actual: Result, expected: Result) -> Array:
    """Return every row's largest difference over logits and states."""
    pairs = zip([actual[0], *actual[1]], [expected[0], *expected[1]], strict=True)
    by_tensor: Array = np.stack([difference(a, b).reshape(len(b), -1).max(1, initial=0.0) for a, b in pairs])
    return by_tensor.max(0)  # type: ignore[no-any-return]  # numpy types reductions as Any
