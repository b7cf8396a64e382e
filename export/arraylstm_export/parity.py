"""Proof that every exported form computes what the model computes: compared with float64 eager PyTorch.

What is compared: batches and lengths other than the example's, zero and random states, ragged lengths, one call against
random chunks, a row alone against the row in a batch, and a long horizon. Differences are absolute below 1 and relative
above: |a - b| / max(1, |b|). A row over the tolerance fails, unless float32 cannot be held to it at all (`reference`
says when): such undecided rows are counted, not compared, and more than a tenth of them is a failure of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from arraylstm import NextItemModel
from arraylstm_export.reference import Reference, difference, largest_by_row
from arraylstm_export.runners import Array, Result, Runner
from arraylstm_export.scenarios import Scenario, all_scenarios, at_once, in_chunks, row_by_row
from arraylstm_export.signature import states_of

_MOST_UNDECIDED = 0.1


@dataclass(frozen=True)
class Check:
    """One tensor of one form in one scenario, against the reference."""

    form: str
    scenario: str
    batch: int
    steps: int
    tensor: str
    difference: float
    """Largest |a - b| / max(1, |b|) over the decided rows."""
    where: tuple[int, ...]
    """Index of the largest difference."""
    tolerance: float
    undecided_rows: int

    @property
    def passed(self) -> bool:
        """Tell whether the difference is within tolerance."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All checks of an export."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every check passed, on enough rows."""
        return all(check.passed for check in self.checks) and self.undecided <= _MOST_UNDECIDED

    @property
    def undecided(self) -> float:
        """The share of compared rows that float32 cannot be held to."""
        return sum(check.undecided_rows for check in self.checks) / sum(check.batch for check in self.checks)

    @property
    def reached(self) -> float:
        """The largest difference of any check."""
        return max(check.difference for check in self.checks)

    def worst_by_form(self) -> list[Check]:
        """Return each form's worst check, in the order the forms were checked."""
        worst: dict[str, Check] = {}
        for check in self.checks:
            if check.form not in worst or _badness(check) > _badness(worst[check.form]):
                worst[check.form] = check
        return list(worst.values())


def verify(
    model: NextItemModel,
    forms: dict[str, Runner],
    tolerance: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> Report:
    """Compare every form with the model in float64 in every scenario.

    Args:
        model: the float32 model in eval mode.
        forms: runners by name.
        tolerance: largest difference that passes.
        on_progress: called with the scenarios done and their total.
        seed: seed of items, states, lengths and chunks.
    """
    source = np.random.default_rng(seed)
    reference = Reference(model)
    scenarios = list(all_scenarios(model.num_items, states_of(model), source))
    checks: list[Check] = []
    for done, scenario in enumerate(scenarios, 1):
        trial = _Trial(reference, scenario, tolerance)
        for form, run in forms.items():
            checks += trial.compare(form, scenario.name, at_once(run, scenario))
            if scenario.name == "ragged":
                checks += trial.compare(form, "ragged, in chunks", in_chunks(run, scenario, source))
                checks += trial.compare(form, "ragged, row by row", row_by_row(run, scenario))
        on_progress(done, len(scenarios))
    return Report(tuple(checks))


class _Trial:
    """One scenario: what the reference gives, and which of its rows are known to be undecided."""

    def __init__(self, reference: Reference, scenario: Scenario, tolerance: float) -> None:
        self.reference = reference
        self.scenario = scenario
        self.tolerance = tolerance
        self.expected = reference(scenario)
        self.undecided: dict[int, bool] = {}

    def compare(self, form: str, scenario: str, actual: Result) -> Iterator[Check]:
        """Yield a check for every tensor, over the rows that are within tolerance or must be."""
        excused = self._excused(largest_by_row(actual, self.expected) > self.tolerance)
        batch, steps = self.scenario.items.shape
        tensors = zip([actual[0], *actual[1]], [self.expected[0], *self.expected[1]], strict=True)
        for name, (ours, expected) in zip(self.reference.names, tensors, strict=True):
            largest, where = _largest(difference(ours, expected), excused)
            yield Check(form, scenario, batch, steps, name, largest, where, self.tolerance, int(excused.sum()))

    def _excused(self, failing: Array) -> Array:
        """Return which failing rows are undecided; twins are run only for rows not met before."""
        unknown = np.array([row for row in np.flatnonzero(failing) if row not in self.undecided], int)
        if len(unknown):
            found = self.reference.undecided(self.scenario.rows(unknown), self.tolerance)
            self.undecided.update(zip(unknown.tolist(), found.tolist(), strict=True))
        undecided: Array = np.array([self.undecided.get(row, False) for row in range(len(failing))], bool)
        return failing & undecided


def _largest(differences: Array, excused: Array) -> tuple[float, tuple[int, ...]]:
    judged = np.where(excused.reshape(-1, *[1] * (differences.ndim - 1)), 0.0, differences)
    if judged.size == 0:
        return 0.0, ()
    where = np.unravel_index(int(judged.argmax()), judged.shape)
    return float(judged[where]), tuple(int(index) for index in where)


def _badness(check: Check) -> tuple[bool, float]:
    return not check.passed, check.difference
