"""One form of the model taken through one scenario, and judged against the reference.

A row that parts from the reference is excused where float32 cannot follow (`reference` says where), and from there on
judged by its single steps instead: the form is run again one step a call, and each step has to be the reference's from
the form's own state before it, or that of a twin which parts there, a *tie* decided otherwise. What hangs on a tie but
is no twin's result is *undecided*. Where the row's run differs from its own single steps, it has *strayed*: a batch
that is rounded otherwise has met a tie, or the form is wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from arraylstm_export.differences import differences, first_over
from arraylstm_export.reference import Reference, Verdict
from arraylstm_export.runners import Array, Result, Runner
from arraylstm_export.scenarios import Scenario, one_by_one, steps_at_once

Way = Callable[[Runner, Scenario], Result]


@dataclass
class Finding:
    """The largest difference of one tensor, and where: (row, step, ...), or of a state after all steps (row, ...)."""

    difference: float = 0.0
    where: tuple[int, ...] = ()

    def add(self, difference: float, where: tuple[int, ...]) -> None:
        """Keep the larger one."""
        if difference >= self.difference:
            self.difference, self.where = difference, where


@dataclass(frozen=True)
class Limits:
    """What passes: the largest difference, and whether ties are no excuse."""

    tolerance: float
    strict: bool


class Piece:
    """A part of a scenario: what the reference gives, and how far its rows are known to be decided."""

    def __init__(self, reference: Reference, scenario: Scenario, start: int) -> None:
        self.reference = reference
        self.scenario = scenario
        self.start = start
        self.expected = reference(scenario)
        self._parting: dict[int, int] = {}

    def decided_steps(self, failing: Array, tolerance: float) -> Array:
        """Return how many steps of every row, which fails at the given one (B) or not (S), are to be compared.

        That is all S, or those before a twin parts; twins are run only for rows they have not explained yet.
        """
        steps = self.scenario.items.shape[1]
        known = np.array([self._parting.get(row, steps) for row in range(len(failing))])
        unknown = np.flatnonzero((failing < steps) & (known > failing))
        if len(unknown):
            found = self.reference.first_parting(self.scenario.rows(unknown), failing[unknown], tolerance)
            self._parting.update(zip(unknown.tolist(), found.tolist(), strict=True))
            known[unknown] = found
        return np.where(failing < steps, known, steps)


class Trial:
    """One form in one scenario, run in one way, piece after piece.

    Attributes:
        findings: one per tensor: logits, diagnostics, next states.
        ties: steps whose tie the form decided otherwise.
        undecided: single steps that nothing can be said of.
        strayed: steps that are not those of the form's own single steps.
    """

    def __init__(self, run: Runner, way: Way, scenario: Scenario, tensors: int, limits: Limits) -> None:
        self.run = run
        self.way = way
        self.limits = limits
        self.state = scenario.state
        self.findings = [Finding() for _ in range(tensors)]
        self.ties = self.undecided = self.strayed = 0
        self.parted = np.zeros(len(scenario.items), bool)

    @property
    def failed(self) -> bool:
        """Tell whether a difference was over the tolerance so far."""
        return any(finding.difference > self.limits.tolerance for finding in self.findings)

    def follow(self, piece: Piece, excusing: bool) -> None:
        """Run a piece from the state reached and judge it.

        Raises:
            ValueError: an output has another shape than the reference's.
        """
        given = replace(piece.scenario, state=self.state)
        actual = self.way(self.run, given)
        _require_shapes(actual, piece.expected)
        self.state = actual[1]
        found = differences(actual, piece.expected)
        failing = first_over(found, given.lengths, self.limits.tolerance)
        if self.limits.strict or not excusing:
            failing[:] = given.items.shape[1]
        decided = np.where(self.parted, 0, piece.decided_steps(failing, self.limits.tolerance))
        late = _between(decided, given)
        self.parted |= late.any(1)
        for finding, one in zip(self.findings, found, strict=True):
            finding.add(*one.but_for(late if one.by_step else self.parted, piece.start))
        if late.any():
            self._judge_single_steps(piece, given, actual, late)

    def _judge_single_steps(self, piece: Piece, given: Scenario, actual: Result, late: Array) -> None:
        single, states = one_by_one(self.run, given)
        if getattr(self.run, "exact_rows", False):
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
        """Count the late steps (B, S) from which a row's run has gone another way than its own single steps."""
        steps = np.arange(late.shape[1])
        parting = first_over(differences(actual, single), given.lengths, self.limits.tolerance)
        return int((late & (steps >= parting[:, None])).sum())

    def _compare_runs(self, actual: Result, single: Result, start: int) -> None:
        """Judge a form that promises the same bits however its steps are cut into calls: no tie can part its runs."""
        for finding, one in zip(self.findings, differences(actual, single), strict=True):
            finding.add(*one.but_for(start=start))

    def _take(self, verdict: Verdict, rows: Array, steps: Array) -> None:
        self.ties += int(verdict.tied.sum())
        self.undecided += int(verdict.undecided.sum())
        for finding, found in zip(self.findings, verdict.found, strict=True):
            difference, where = found.flat().but_for(verdict.undecided)
            if where:
                pair, *inner = where
                finding.add(difference, (int(rows[pair]), int(steps[pair]), *inner))


def _between(decided: Array, scenario: Scenario) -> Array:
    """Tell which steps (B, S) come after the decided ones and before the row's length."""
    steps = np.arange(scenario.items.shape[1])
    return (steps >= decided[:, None]) & (steps < scenario.lengths[:, None])


def _require_shapes(actual: Result, expected: Result) -> None:
    for ours, theirs in zip((*actual[0], *actual[1]), (*expected[0], *expected[1]), strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(f"an output must be {list(theirs.shape)}, but is {list(ours.shape)}")
