"""Proof that every exported form computes what the model computes: compared with the model in float64 PyTorch.

The scenarios have batches and lengths other than the example's, initial and random states, ragged lengths, every item,
and a long horizon; schedules compare one call with random chunks, and a row alone with the row in a batch. Differences
are absolute below 1 and relative above: |a - b| / max(1, |b|). A row over the tolerance fails, unless float32 cannot
follow the reference from some step on; `verdicts` says how such a row is judged. A form that promises it must give a
row the same bits in every batch, and in one call as step by step.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from arraylstm.errors import one_line
from arraylstm_export.arrays import Result
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.runner import Runner
from arraylstm_export.interface import Interface
from arraylstm_export.parity.differences import differences
from arraylstm_export.parity.reference import Reference
from arraylstm_export.parity.report import Check, Report
from arraylstm_export.parity.scenarios import (
    Coverage,
    Scenario,
    all_scenarios,
    make_scenario,
    pieces,
    steps_at_once,
)
from arraylstm_export.parity.schedules import (
    Schedule,
    at_once,
    draw_cuts,
    in_batches,
    in_chunks,
    reordered,
    row_by_row,
)
from arraylstm_export.parity.verdicts import Finding, JudgedRun, Limits, Piece


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
        on_progress: called with the number of scenarios done and their total.
        seed: seed of items, states, lengths and chunks.
        strict: whether a difference fails even where float32 cannot decide between lanes.
        coverage: the sizes to try; the longest run is shorter where it would have too many logits to compute.

    Raises:
        ExportError: a form cannot be run, or an output has another shape than the reference's.
    """
    rng, interface = np.random.default_rng(seed), reference.interface
    scenarios = list(all_scenarios(interface.num_items, interface.states, rng, coverage))
    comparison = _Comparison(reference, forms, Limits(tolerance, strict))
    checks: list[Check] = []
    for done, scenario in enumerate(scenarios, 1):
        checks += comparison.run(scenario, _schedules(scenario, coverage.chunkings, rng))
        on_progress(done, len(scenarios))
    for form, run in forms.items():
        if run.exact_rows:
            checks += exact_row_checks(form, run, interface, coverage, rng)
    not_compared = {form: run.why_not_exact for form, run in forms.items() if run.why_not_exact is not None}
    return Report(tuple(checks), scenarios[-1].items.shape[1], strict, not_compared=not_compared)


def replay(
    vectors: Iterable[tuple[Scenario, Result]], interface: Interface, forms: dict[str, Runner], tolerance: float
) -> Report:
    """Compare every form with recorded results.

    Args:
        vectors: pairs of a scenario and its result.
        interface: what the forms take and return.
        forms: runners by name.
        tolerance: largest difference that passes.

    Raises:
        ExportError: a form cannot be run.
    """
    checks: list[Check] = []
    longest = 0
    for scenario, expected in vectors:
        longest = max(longest, scenario.items.shape[1])
        for form, run in forms.items():
            with _named(form, scenario.name, scenario):
                found = differences(at_once(run, scenario), expected)
            for tensor, one in zip(interface.tensor_names, found, strict=True):
                finding = Finding(*one.overall())
                checks.append(_check(form, scenario.name, scenario, tensor, finding, tolerance))
    return Report(tuple(checks), longest, strict=True)


def exact_row_checks(
    form: str, run: Runner, interface: Interface, coverage: Coverage, rng: np.random.Generator
) -> Iterator[Check]:
    """Yield checks that rows are the same bits in batches of other sizes, in another order, and step by step."""
    rows = max(coverage.batches)
    steps = min(max(coverage.ragged[0]), max(1, steps_at_once(interface.num_items) // rows))
    lengths = np.append(rng.integers(0, steps + 1, rows - 1), steps)
    scenario = make_scenario("equal bits", interface.num_items, interface.states, lengths, rng)
    schedules: dict[str, Schedule] = {
        **{f"in batches of {size}": partial(in_batches, size) for size in coverage.batches[:-1]},
        "in another order": reordered,
        "step by step": partial(in_chunks, range(steps + 1)),
    }
    whole = at_once(run, scenario)
    for name, schedule in schedules.items():
        found = schedule(run, scenario)
        pairs = zip((*found[0], *found[1]), (*whole[0], *whole[1]), strict=True)
        same = [ours.tobytes() == theirs.tobytes() for ours, theirs in pairs]
        for tensor, one, equal in zip(interface.tensor_names, differences(found, whole), same, strict=True):
            difference, where = one.overall()
            finding = Finding() if equal else Finding(max(difference, np.finfo(float).tiny), where)  # -0 is not 0
            yield _check(form, f"equal bits, {name}", scenario, tensor, finding, 0.0)


class _Comparison:
    """All forms, run through one scenario after another."""

    def __init__(self, reference: Reference, forms: dict[str, Runner], limits: Limits) -> None:
        self.reference = reference
        self.forms = forms
        self.limits = limits
        self.wrong: set[str] = set()

    def run(self, scenario: Scenario, schedules: dict[str, Schedule]) -> Iterator[Check]:
        """Yield a check for every form, schedule and tensor.

        The reference is computed once for each piece of the scenario. Once a form is known to be wrong, its further
        differences are no longer excused, because that takes long.
        """
        names, state = self.reference.interface.tensor_names, scenario.state
        runs = {
            (form, name): JudgedRun(run, schedule, scenario, len(names), self.limits)
            for form, run in self.forms.items()
            for name, schedule in schedules.items()
        }
        for start, end in pieces(scenario, self.reference.interface.num_items):
            piece = Piece(self.reference, scenario.piece(start, end, state), start)
            for (form, name), judged in runs.items():
                with _named(form, name, scenario):
                    judged.judge(piece, excusing=form not in self.wrong)
                self.wrong |= {form} if judged.failed else set()
            state = piece.expected[1]
        for (form, name), judged in runs.items():
            for tensor, finding in zip(names, judged.findings, strict=True):
                yield replace(
                    _check(form, name, scenario, tensor, finding, self.limits.tolerance),
                    ties=judged.ties,
                    undecided_steps=judged.undecided,
                    strayed_steps=judged.strayed,
                )


def _schedules(scenario: Scenario, chunkings: int, rng: np.random.Generator) -> dict[str, Schedule]:
    """Return the schedules for a scenario by their names: several for a ragged batch, one for any other."""
    if scenario.name != "ragged":
        return {scenario.name: at_once}
    steps = scenario.items.shape[1]
    chunks = [draw_cuts(steps, rng) for _ in range(chunkings)]
    return {
        "ragged": at_once,
        **{f"ragged, in {len(cuts) - 1} chunks": partial(in_chunks, cuts) for cuts in chunks},
        "ragged, row by row": row_by_row,
    }


def _check(form: str, name: str, scenario: Scenario, tensor: str, finding: Finding, tolerance: float) -> Check:
    batch, steps = scenario.items.shape
    return Check(form, name, batch, steps, tensor, finding.difference, finding.where, tolerance)


@contextmanager
def _named(form: str, name: str, scenario: Scenario) -> Iterator[None]:
    """Turn any error of a form into one sentence that names the form and the scenario."""
    try:
        yield
    except Exception as error:  # every runtime raises its own
        batch, steps = scenario.items.shape
        raise ExportError(f"{form} cannot be run ({name}, {batch} x {steps}): {one_line(error)}") from error
