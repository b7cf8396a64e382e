"""Proof that every exported form computes what the model computes: compared with float64 eager PyTorch.

What is compared: batches and lengths other than the example's, zero and random states, ragged lengths, one call against
random chunks, a row alone against the row in a batch, and a long horizon. Differences are absolute below 1 and relative
above: |a - b| / max(1, |b|). A row over the tolerance fails, unless float32 cannot be held to it from some step on
(`reference` says when): its steps from there are counted as undecided, not compared, and more than a tenth of all
steps is a failure of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from arraylstm import ItemModel
from arraylstm.errors import one_line
from arraylstm_export.errors import ExportError
from arraylstm_export.reference import Reference, differences, largest_by_row
from arraylstm_export.runners import Array, Result, Runner
from arraylstm_export.scenarios import Scenario, all_scenarios, at_once, in_chunks, row_by_row
from arraylstm_export.signature import Interface

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
    """Largest |a - b| / max(1, |b|) over the decided steps."""
    where: tuple[int, ...]
    """Index of the largest difference."""
    tolerance: float
    undecided_steps: int

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
        """Tell whether every check passed, on enough steps."""
        return all(check.passed for check in self.checks) and self.undecided <= _MOST_UNDECIDED

    @property
    def failure(self) -> str:
        """Why it did not pass."""
        failed = [check for check in self.checks if not check.passed]
        if failed:
            return f"{len(failed)} of {len(self.checks)} checks are over the tolerance"
        return (
            f"{self.undecided:.0%} of its steps hang on choices between lanes so nearly equal that float32 cannot "
            f"decide them, and at most {_MOST_UNDECIDED:.0%} may; saturated gates do that"
        )

    @property
    def undecided(self) -> float:
        """The share of all rows' steps that float32 cannot be held to."""
        steps = sum(check.batch * check.steps for check in self.checks)
        return sum(check.undecided_steps for check in self.checks) / steps

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
    model: ItemModel,
    interface: Interface,
    forms: dict[str, Runner],
    tolerance: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> Report:
    """Compare every form with the model in float64 in every scenario.

    Args:
        model: the float32 model in eval mode.
        interface: what its forms take and give.
        forms: runners by name.
        tolerance: largest difference that passes.
        on_progress: called with the scenarios done and their total.
        seed: seed of items, states, lengths and chunks.

    Raises:
        ExportError: a form cannot be run at all.
    """
    source = np.random.default_rng(seed)
    reference = Reference(model, interface)
    scenarios = list(all_scenarios(interface.num_items, interface.states, source))
    checks: list[Check] = []
    wrong: set[str] = set()
    for done, scenario in enumerate(scenarios, 1):
        trial = _Trial(reference, scenario, tolerance)
        for form, run in forms.items():
            ways = {scenario.name: partial(at_once, run, scenario)}
            if scenario.name == "ragged":
                ways["ragged, in chunks"] = partial(in_chunks, run, scenario, source)
                ways["ragged, row by row"] = partial(row_by_row, run, scenario)
            for name, way in ways.items():
                found = list(trial.compare(form, name, _run(way, form, scenario), excusing=form not in wrong))
                checks += found
                wrong |= {form} if not all(check.passed for check in found) else set()
        on_progress(done, len(scenarios))
    return Report(tuple(checks))


class _Trial:
    """One scenario: what the reference gives, and how far its rows are known to be decided."""

    def __init__(self, reference: Reference, scenario: Scenario, tolerance: float) -> None:
        self.reference = reference
        self.scenario = scenario
        self.tolerance = tolerance
        self.expected = reference(scenario)
        self.decided: dict[int, int] = {}

    def compare(self, form: str, scenario: str, actual: Result, excusing: bool) -> Iterator[Check]:
        """Yield a check for every tensor, over the steps that are within tolerance or must be.

        Of a form that is known to be wrong nothing more need be excused, which takes time to find out.
        """
        (series, states), (expected_series, expected_states) = actual, self.expected
        found = differences([*series, *states], [*expected_series, *expected_states])
        batch, steps = self.scenario.items.shape
        failing = largest_by_row(found) > self.tolerance
        decided = self._decided_steps(failing & excusing)
        late = np.arange(steps) >= decided[:, None]
        excused = [late] * len(series) + [decided < steps] * len(states)
        names = self.reference.series_names + self.reference.state_names
        undecided = int((steps - decided).sum())
        for name, by_index, excuse in zip(names, found, excused, strict=True):
            largest, where = _largest(by_index, excuse)
            yield Check(form, scenario, batch, steps, name, largest, where, self.tolerance, undecided)

    def _decided_steps(self, failing: Array) -> Array:
        """Return how many steps of every row are to be compared; twins are run only for failing rows not met before."""
        unknown = np.array([row for row in np.flatnonzero(failing) if row not in self.decided], int)
        if len(unknown):
            found = self.reference.decided_steps(self.scenario.rows(unknown), self.tolerance)
            self.decided.update(zip(unknown.tolist(), found.tolist(), strict=True))
        steps = self.scenario.items.shape[1]
        return np.array([self.decided[row] if fails else steps for row, fails in enumerate(failing)], int)


def _largest(by_index: Array, excused: Array) -> tuple[float, tuple[int, ...]]:
    """Return the largest difference and its index, but for the leading indices that are excused."""
    judged = np.where(excused.reshape(excused.shape + (1,) * (by_index.ndim - excused.ndim)), 0.0, by_index)
    if judged.size == 0:
        return 0.0, ()
    where = np.unravel_index(int(judged.argmax()), judged.shape)
    return float(judged[where]), tuple(int(index) for index in where)


def _run(way: Callable[[], Result], form: str, scenario: Scenario) -> Result:
    try:
        return way()
    except Exception as error:  # every runtime has its own
        batch, steps = scenario.items.shape
        raise ExportError(f"{form} cannot be run ({scenario.name}, {batch} x {steps}): {one_line(error)}") from error


def _badness(check: Check) -> tuple[bool, float]:
    return not check.passed, check.difference
