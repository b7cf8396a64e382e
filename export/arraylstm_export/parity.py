"""Proof that every exported form computes what the model computes: compared with float64 eager PyTorch.

What is compared: batches and lengths other than the example's, zero and random states, ragged lengths, one call against
random chunks, a row alone against the row in a batch, every item, and a long horizon. Differences are absolute below 1
and relative above: |a - b| / max(1, |b|). A row over the tolerance fails, unless float32 cannot be held to it from some
step on: then its single steps are judged (`trial` says how). A form fails with more than half of its steps undecided (a
handful of ties at once; the other half, thousands of steps, is enough to judge it by), or more than a tenth strayed.
Forms that promise it have to give a row the same bits in every batch, and in one call as step by step.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from arraylstm.errors import one_line
from arraylstm_export.accuracy import Accuracy
from arraylstm_export.differences import differences
from arraylstm_export.errors import ExportError
from arraylstm_export.reference import Reference
from arraylstm_export.runners import Result, Runner
from arraylstm_export.scenarios import (
    Coverage,
    Scenario,
    all_scenarios,
    at_once,
    draw_cuts,
    in_batches,
    in_chunks,
    make_scenario,
    pieces,
    row_by_row,
    steps_at_once,
    turned,
)
from arraylstm_export.signature import Interface
from arraylstm_export.trial import Finding, Limits, Piece, Trial, Way

_MOST_UNDECIDED = 0.5
_MOST_STRAYED = 0.1


@dataclass(frozen=True)
class Check:
    """One tensor of one form in one scenario, against the reference, or, equal bits wanted, against itself."""

    form: str
    scenario: str
    batch: int
    steps: int
    tensor: str
    difference: float
    """Largest |a - b| / max(1, |b|) over what was judged."""
    where: tuple[int, ...]
    """Index of the largest difference; of a state that was judged step by step, with the step second."""
    tolerance: float
    ties: int = 0
    """Steps at which the form decided a tie otherwise than the reference."""
    undecided_steps: int = 0
    """Single steps nothing can be said of: they hang on ties."""
    strayed_steps: int = 0
    """Steps, behind a tie, at which the form's run is not that of its own single steps."""

    @property
    def equal_bits(self) -> bool:
        """Tell whether the form is compared with itself, in other batches."""
        return self.tolerance == 0

    @property
    def passed(self) -> bool:
        """Tell whether the difference is within tolerance."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All checks of an export."""

    checks: tuple[Check, ...]
    horizon: int
    """Steps of the longest run."""
    strict: bool
    """Whether ties were no excuse."""
    accuracy: Accuracy | None = None
    """What a precision below fp32 costs, where it was measured."""

    @property
    def passed(self) -> bool:
        """Tell whether every check passed, on enough steps of every form."""
        decided = self.undecided <= _MOST_UNDECIDED and self.strayed <= _MOST_STRAYED
        return decided and all(check.passed for check in self.checks)

    @property
    def failure(self) -> str:
        """Why it did not pass."""
        failed = [check for check in self.checks if not check.passed]
        if failed:
            over = f"{len(failed)} of {len(self.checks)} checks are over the tolerance"
            if self.accuracy is None or any(check.equal_bits for check in failed):
                return over
            return (
                f"{over}, largest difference {self.reached:.1e}; a precision below fp32 moves choices of lanes too, "
                f"and {self.accuracy.same_top_1:.2%} of held-out steps keep their first item: --tolerance can allow it"
            )
        if self.strayed > _MOST_STRAYED:
            return (
                f"{self.strayed:.0%} of a form's steps, behind a tie, are not those it takes one by one, and at most "
                f"{_MOST_STRAYED:.0%} may be: it goes wrong in long calls, or rounds every call otherwise"
            )
        return (
            f"{self.undecided:.0%} of a form's steps hang on choices between lanes so nearly equal that float32 cannot "
            f"decide them, and at most {_MOST_UNDECIDED:.0%} may; saturated gates do that"
        )

    @property
    def undecided(self) -> float:
        """The largest share of its steps that any form cannot be held to."""
        return self._largest_share(lambda check: check.undecided_steps)

    @property
    def strayed(self) -> float:
        """The largest share of its steps at which any form's run is not that of its own single steps."""
        return self._largest_share(lambda check: check.strayed_steps)

    @property
    def ties(self) -> float:
        """The largest share of its steps at which any form decided a tie otherwise."""
        return self._largest_share(lambda check: check.ties)

    @property
    def reached(self) -> float:
        """The largest difference of any check."""
        return max(check.difference for check in self.checks)

    def by_form(self) -> dict[str, list[Check]]:
        """Return every form's checks, in the order the forms were checked."""
        forms: dict[str, list[Check]] = {}
        for check in self.checks:
            forms.setdefault(check.form, []).append(check)
        return forms

    def worst_by_form(self) -> list[Check]:
        """Return each form's worst check."""
        return [max(checks, key=_badness) for checks in self.by_form().values()]

    def _largest_share(self, count: Callable[[Check], int]) -> float:
        """Return the largest share of the steps compared with the reference that are counted for a form."""
        shares = []
        for checks in self.by_form().values():
            compared = [check for check in checks if not check.equal_bits]
            shares.append(sum(map(count, compared)) / sum(check.batch * check.steps for check in compared))
        return max(shares)

    def worst_by_tensor(self) -> list[Check]:
        """Return each form's worst check of every tensor."""
        worst: dict[tuple[str, str], Check] = {}
        for check in self.checks:
            key = check.form, check.tensor
            if key not in worst or _badness(check) > _badness(worst[key]):
                worst[key] = check
        return list(worst.values())


def verify(
    reference: Reference,
    forms: dict[str, Runner],
    tolerance: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
    strict: bool = False,
    coverage: Coverage = Coverage(),
) -> Report:
    """Compare every form with the model in float64 in every scenario.

    Args:
        reference: the model in float64.
        forms: runners by name.
        tolerance: largest difference that passes.
        on_progress: called with the scenarios done and their total.
        seed: seed of items, states, lengths and chunks.
        strict: whether a difference fails even where float32 cannot decide between lanes.
        coverage: the sizes to try; the longest run is shorter where its logits would be too many to compute.

    Raises:
        ExportError: a form cannot be run at all, or gives tensors of other shapes.
    """
    source, interface = np.random.default_rng(seed), reference.interface
    scenarios = list(all_scenarios(interface.num_items, interface.states, source, coverage))
    net = _Net(reference, forms, Limits(tolerance, strict))
    checks: list[Check] = []
    for done, scenario in enumerate(scenarios, 1):
        checks += net.catch(scenario, _ways(scenario, coverage.chunkings, source))
        on_progress(done, len(scenarios))
    for form, run in forms.items():
        if getattr(run, "exact_rows", False):
            checks += exact_row_checks(form, run, interface, coverage, source)
    return Report(tuple(checks), scenarios[-1].items.shape[1], strict)


def replay(
    vectors: Iterable[tuple[Scenario, Result]], interface: Interface, forms: dict[str, Runner], tolerance: float
) -> Report:
    """Compare every form with results that were recorded: pairs of a scenario and its (series, states).

    Raises:
        ExportError: a form cannot be run at all, or gives tensors of other shapes.
    """
    checks: list[Check] = []
    longest = 0
    for scenario, expected in vectors:
        longest = max(longest, scenario.items.shape[1])
        for form, run in forms.items():
            with _named(form, scenario.name, scenario):
                found = differences(at_once(run, scenario), expected)
            for tensor, one in zip(interface.tensor_names, found, strict=True):
                finding = Finding(*one.but_for())
                checks.append(_check(form, scenario.name, scenario, tensor, finding, tolerance))
    return Report(tuple(checks), longest, strict=True)


class _Net:
    """The forms, taken through one scenario after the other."""

    def __init__(self, reference: Reference, forms: dict[str, Runner], limits: Limits) -> None:
        self.reference = reference
        self.forms = forms
        self.limits = limits
        self.wrong: set[str] = set()

    def catch(self, scenario: Scenario, ways: dict[str, Way]) -> Iterator[Check]:
        """Yield a check of every form, way and tensor; the pieces of a scenario are met by all of them in turn.

        Of a form that is known to be wrong nothing more need be excused, which takes time to find out.
        """
        names, state = self.reference.interface.tensor_names, scenario.state
        trials = {
            (form, name): Trial(run, way, scenario, len(names), self.limits)
            for form, run in self.forms.items()
            for name, way in ways.items()
        }
        for start, end in pieces(scenario, self.reference.interface.num_items):
            piece = Piece(self.reference, scenario.piece(start, end, state), start)
            for (form, name), trial in trials.items():
                with _named(form, name, scenario):
                    trial.follow(piece, excusing=form not in self.wrong)
                self.wrong |= {form} if trial.failed else set()
            state = piece.expected[1]
        for (form, name), trial in trials.items():
            for tensor, finding in zip(names, trial.findings, strict=True):
                yield replace(
                    _check(form, name, scenario, tensor, finding, self.limits.tolerance),
                    ties=trial.ties,
                    undecided_steps=trial.undecided,
                    strayed_steps=trial.strayed,
                )


def _ways(scenario: Scenario, chunkings: int, source: np.random.Generator) -> dict[str, Way]:
    """Return the ways to run a scenario through, by their names."""
    if scenario.name != "ragged":
        return {scenario.name: at_once}
    steps = scenario.items.shape[1]
    chunks = [draw_cuts(steps, source) for _ in range(chunkings)]
    return {
        "ragged": at_once,
        **{f"ragged, in {len(cuts) - 1} chunks": partial(in_chunks, cuts) for cuts in chunks},
        "ragged, row by row": row_by_row,
    }


def exact_row_checks(
    form: str, run: Runner, interface: Interface, coverage: Coverage, source: np.random.Generator
) -> Iterator[Check]:
    """Yield checks that rows are the same bits in batches of several sizes, in another place, and step by step."""
    rows = max(coverage.batches)
    steps = min(max(coverage.ragged[0]), max(1, steps_at_once(interface.num_items) // rows))
    lengths = np.append(source.integers(0, steps + 1, rows - 1), steps)
    scenario = make_scenario("equal bits", interface.num_items, interface.states, lengths, source)
    ways: dict[str, Way] = {f"in batches of {size}": partial(in_batches, size) for size in coverage.batches[:-1]}
    ways |= {"in another order": turned, "step by step": partial(in_chunks, range(steps + 1))}
    whole = at_once(run, scenario)
    for name, way in ways.items():
        found = way(run, scenario)
        pairs = zip((*found[0], *found[1]), (*whole[0], *whole[1]), strict=True)
        same = [ours.tobytes() == theirs.tobytes() for ours, theirs in pairs]
        for tensor, one, equal in zip(interface.tensor_names, differences(found, whole), same, strict=True):
            difference, where = one.but_for()
            finding = Finding() if equal else Finding(max(difference, np.finfo(float).tiny), where)  # -0 is not 0
            yield _check(form, f"equal bits, {name}", scenario, tensor, finding, 0.0)


def _check(form: str, name: str, scenario: Scenario, tensor: str, finding: Finding, tolerance: float) -> Check:
    batch, steps = scenario.items.shape
    return Check(form, name, batch, steps, tensor, finding.difference, finding.where, tolerance)


@contextmanager
def _named(form: str, name: str, scenario: Scenario) -> Iterator[None]:
    """Turn what a form raises into one sentence that says which form it was, and in what."""
    try:
        yield
    except Exception as error:  # every runtime has its own
        batch, steps = scenario.items.shape
        raise ExportError(f"{form} cannot be run ({name}, {batch} x {steps}): {one_line(error)}") from error


def _badness(check: Check) -> tuple[bool, float]:
    return not check.passed, check.difference
