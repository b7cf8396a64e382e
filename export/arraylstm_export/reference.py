"""What every form is measured against: the model's own `forward` in float64, and how far float32 can follow it.

Where a model chooses (an argmax over nearly equal gates), float32 cannot tell which choice float64 makes. Such rows are
found without knowing the cell: twins of the model are run on the row too, itself in float32, and itself with the result
of every operation moved by about what float32 leaves open and runtimes round differently. From where one of them parts
from the reference, the row is *undecided*.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arraylstm import ItemModel
from arraylstm_export.runners import Array, Result, Whole
from arraylstm_export.scenarios import Scenario, at_once
from arraylstm_export.signature import Interface

TWINS = 8
_UNRESOLVED = 4 * torch.finfo(torch.float32).eps
_UNDECIDED_ABOVE = 1e-5


class Reference:
    """The model in float64."""

    def __init__(self, model: ItemModel, interface: Interface) -> None:
        self.interface = interface
        self.series_names = ["logits", *(trace.name for trace in interface.traces)]
        self.state_names = [state.output.name for state in interface.states]
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
        limit = max(tolerance, _UNDECIDED_ABOVE)
        decided = np.full(rows, steps)
        for twin in self._twins():
            reach = int(decided.max())
            if reach == 0:
                break
            other_series, other_state = twin(scenario.until(reach))
            found = differences(other_series, [whole[:, :reach] for whole in series])
            parted = np.ones((rows, reach + 1), bool)
            by_step = largest_by_row([tensor.reshape(rows * reach, -1) for tensor in found])
            parted[:, :reach] = by_step.reshape(rows, reach) > limit
            if reach == steps:
                parted[:, -2] |= largest_by_row(differences(other_state, state)) > limit
            decided = np.minimum(decided, parted.argmax(1))
        return decided

    def _twins(self) -> Iterator[Callable[[Scenario], Result]]:
        yield lambda scenario: at_once(self._float32, scenario)
        for seed in range(TWINS):
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
