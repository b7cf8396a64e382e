"""What every form is measured against: the model's own `forward` in float64, and how far float32 can follow it.

Where a model chooses (an argmax over nearly equal gates), float32 cannot tell which choice float64 makes. Such rows are
found without knowing the cell: twins of the model, itself in float32 and copies whose weights are moved by what
float32 arithmetic cannot resolve, are run on the row too; from where one of them parts from the reference, the row is
*undecided*.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch

from arraylstm import ItemModel
from arraylstm_export.runners import Array, Result, Whole
from arraylstm_export.scenarios import Scenario, at_once
from arraylstm_export.signature import Interface

TWINS = 16
_UNRESOLVED = 16 * torch.finfo(torch.float32).eps
_UNDECIDED_ABOVE = 1e-5


class Reference:
    """The model in float64."""

    def __init__(self, model: ItemModel, interface: Interface) -> None:
        self.interface = interface
        self.series_names = ["logits", *(trace.name for trace in interface.traces)]
        self.state_names = [state.output.name for state in interface.states]
        self._float32 = Whole(model, interface)
        self._module = copy.deepcopy(model).double()
        self._run = Whole(self._module, interface, torch.float64)

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
        decided = np.full(rows, steps)
        for twin in self._twins():
            other_series, other_state = at_once(twin, scenario)
            by_step = [found.reshape(rows * steps, -1) for found in differences(other_series, series)]
            parted = np.ones((rows, steps + 1), bool)
            parted[:, :steps] = largest_by_row(by_step).reshape(rows, steps) > max(tolerance, _UNDECIDED_ABOVE)
            moved = largest_by_row(differences(other_state, state)) > max(tolerance, _UNDECIDED_ABOVE)
            parted[:, steps - 1] |= moved
            decided = np.minimum(decided, parted.argmax(1))
        return decided

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
        return Whole(twin, self.interface, torch.float64)


def difference(actual: Array, expected: Array) -> Array:
    """Return |a - b| / max(1, |b|), infinite where a is NaN."""
    relative = np.abs(actual.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return np.asarray(np.nan_to_num(relative, nan=np.inf))


def differences(actual: list[Array], expected: list[Array]) -> list[Array]:
    """Return the difference of each of several tensors."""
    return [difference(ours, theirs) for ours, theirs in zip(actual, expected, strict=True)]


def largest_by_row(found: list[Array]) -> Array:
    """Return every row's largest difference over several tensors' differences (B, ...)."""
    by_tensor: Array = np.stack([by_index.reshape(len(by_index), -1).max(1, initial=0.0) for by_index in found])
    return by_tensor.max(0)  # type: ignore[no-any-return]  # numpy types reductions as Any
