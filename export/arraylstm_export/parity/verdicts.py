"""One form in one scenario, run on one schedule and judged against the reference.

A row that differs from the reference is excused from the step at which float32 can no longer follow (see `reference`),
and judged by its single steps from there on. The form is run again with one step per call, and each step is compared
with the step that the reference makes from the form's own state before it. A step that agrees with a twin instead made
another choice at a *tie*, which is not an error. A step near a tie that agrees with no twin is *undecided*. Where the
row's run differs from its own single steps, it has *strayed*: either it met a tie in a batch that is rounded
differently, or the form is wrong.
"""

from dataclasses import dataclass, replace

import numpy as np

from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.runner import Runner
from arraylstm_export.parity.differences import differences, first_over
from arraylstm_export.parity.reference import Reference, Verdict
from arraylstm_export.parity.scenarios import Scenario, steps_at_once
from arraylstm_export.parity.schedules import Schedule, step_by_step


@dataclass
class Finding:
    """The largest difference of a tensor and its index: (row, step, ...), or (row, ...) of a state after all steps."""

    difference: float = 0.0
    where: tuple[int, ...] = ()

    def add(self, difference: float, where: tuple[int, ...]) -> None:
        """Keep the larger one."""
        if difference >= self.difference:
            self.difference, self.where = difference, where


@dataclass(frozen=True)
class Limits:
    """What passes: the largest difference, and whether a difference at a tie fails like any other."""

    tolerance: float
    strict: bool


class Piece:
    """A part of a scenario: what the reference gives for it, and how many steps of its rows are decided."""

    def __init__(self, reference: Reference, scenario: Scenario, start: int) -> None:
        self.reference = reference
        self.scenario = scenario
        self.start = start
        self.expected = reference(scenario)
        self._undecided_from: dict[int, int] = {}

    def decided_steps(self, failing: Array, tolerance: float) -> Array:
        """Return how many steps (B) of every row can be compared: those before a twin differs, or all S.

        Twins are run only for rows that differ (at step `failing`, S where they do not) and are not explained yet.
        """
        steps = self.scenario.items.shape[1]
        known = np.array([self._undecided_from.get(row, steps) for row in range(len(failing))])
        unknown = np.flatnonzero((failing < steps) & (known > failing))
        if len(unknown):
            found = self.reference.first_undecided(self.scenario.rows(unknown), failing[unknown], tolerance)
            self._undecided_from.update(zip(unknown.tolist(), found.tolist(), strict=True))
            known[unknown] = found
        return np.where(failing < steps, known, steps)


class JudgedRun:
    """One form in one scenario on one schedule, piece after piece.

    Attributes:
        findings: one per tensor: logits, diagnostics, next states.
        ties: single steps at which the form made another choice at a tie.
        undecided: single steps that can be called neither right nor wrong.
        strayed: steps at which the run differs from the form's own single steps.
    """

    def __init__(self, run: Runner, schedule: Schedule, scenario: Scenario, tensors: int, limits: Limits) -> None:
        self.run = run
        self.schedule = schedule
        self.limits = limits
        self.state = scenario.state
        self.findings = [Finding() for _ in range(tensors)]
        self.ties = self.undecided = self.strayed = 0
        self.excused = np.zeros(len(scenario.items), bool)
        """The rows that are judged by their single steps."""

    @property
    def failed(self) -> bool:
        """Tell whether a difference was over the tolerance so far."""
        return any(finding.difference > self.limits.tolerance for finding in self.findings)

    def judge(self, piece: Piece, excusing: bool) -> None:
        """Run a piece from the state that the run has reached, and judge it.

        Raises:
            ValueError: an output has another shape than the reference's.
        """
        given = replace(piece.scenario, state=self.state)
        actual = self.schedule(self.run, given)
        _require_shapes(actual, piece.expected)
        self.state = actual[1]
        found = differences(actual, piece.expected)
        failing = first_over(found, given.lengths, self.limits.tolerance)
        if self.limits.strict or not excusing:
            failing[:] = given.items.shape[1]
        decided = np.where(self.excused, 0, piece.decided_steps(failing, self.limits.tolerance))
        late = _from_step(decided, given)
        self.excused |= late.any(1)
        for finding, one in zip(self.findings, found, strict=True):
            finding.add(*one.overall(late if one.by_step else self.excused, piece.start))
        if late.any():
            self._judge_single_steps(piece, given, actual, late)

    def _judge_single_steps(self, piece: Piece, given: Scenario, actual: Result, late: Array) -> None:
        """Judge the late steps (B, S), each from the form's own state before it."""
        single, states = step_by_step(self.run, given)
        if self.run.exact_rows:
            self._compare_runs(actual, single, piece.start)
        self.strayed += self._count_strayed(given, actual, single, late)
        width = steps_at_once(piece.reference.interface.num_items)
        rows, steps = np.nonzero(late)
        for part in np.array_split(np.arange(len(rows)), -(-len(rows) // width)):
            at = rows[part], steps[part]
            series = [tensor[at][:, None] for tensor in single[0]]
            before, after = ([tensor[at[1] + shift, at[0]] for tensor in states] for shift in (0, 1))
            one = Scenario(given.name, given.items[at][:, None], np.ones(len(part), np.int64), before)
            verdict = piece.reference.judge(one, (series, after), self.limits.tolerance)
            self._take(verdict, at[0], at[1] + piece.start)

    def _count_strayed(self, given: Scenario, actual: Result, single: Result, late: Array) -> int:
        """Count the late steps (B, S) from the first one at which a row's run differs from its own single steps."""
        steps = np.arange(late.shape[1])
        first = first_over(differences(actual, single), given.lengths, self.limits.tolerance)
        return int((late & (steps >= first[:, None])).sum())

    def _compare_runs(self, actual: Result, single: Result, start: int) -> None:
        """Compare the run with its single steps: where both must be the same bits, a tie is no excuse."""
        for finding, one in zip(self.findings, differences(actual, single), strict=True):
            finding.add(*one.overall(start=start))

    def _take(self, verdict: Verdict, rows: Array, steps: Array) -> None:
        self.ties += int(verdict.tied.sum())
        self.undecided += int(verdict.undecided.sum())
        for finding, found in zip(self.findings, verdict.found, strict=True):
            difference, where = found.flat().overall(verdict.undecided)
            if where:
                pair, *inner = where
                finding.add(difference, (int(rows[pair]), int(steps[pair]), *inner))


def _from_step(first: Array, scenario: Scenario) -> Array:
    """Return a mask (B, S) of the steps from `first` (B) to the row's length."""
    steps = np.arange(scenario.items.shape[1])
    return (steps >= first[:, None]) & (steps < scenario.lengths[:, None])


def _require_shapes(actual: Result, expected: Result) -> None:
    for ours, theirs in zip((*actual[0], *actual[1]), (*expected[0], *expected[1]), strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(f"an output must be {list(theirs.shape)}, but is {list(ours.shape)}")
