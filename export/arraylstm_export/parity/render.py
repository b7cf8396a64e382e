"""A parity report as text: its headline, Markdown and JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from arraylstm_export.parity.report import Check, Report

HEADINGS = ("form", "difference", "tensor", "scenario", "at", "ties", "undecided", "strayed", "")
_TIES = (
    "A model that chooses between lanes meets ties: gates so nearly equal that float32 cannot decide between them as",
    "float64 does. A different choice at a tie is not an error. From a tie on, a row is judged by its single steps.",
    "`ties` counts the steps with a different choice that are otherwise right, `undecided` the steps near a tie that",
    "can be called neither right nor wrong, and `strayed` the steps after a tie at which the row's run, rounded",
    "differently, is no longer that of its single steps.",
)


def headline(report: Report) -> str:
    """Return the result in one line."""
    tolerance = report.checks[0].tolerance
    word = f"{'passed' if report.passed else 'FAILED'} at tolerance {tolerance:g}"
    ties = f", {report.ties:.2%} of steps with a different choice at a tie" if report.ties else ""
    undecided = f", {report.undecided:.2%} undecided in float32" if report.undecided else ""
    return f"{word}, largest difference {report.reached:.1e}{ties}{undecided}"


def cells(check: Check) -> list[str]:
    """Return a check as text, under `HEADINGS`."""
    return [
        check.form,
        f"{check.difference:.1e}",
        check.tensor,
        f"{check.scenario}, {check.batch} x {check.steps}",
        str(list(check.where)),
        str(check.ties),
        str(check.undecided_steps),
        str(check.strayed_steps),
        "ok" if check.passed else "FAILED",
    ]


def as_markdown(report: Report) -> str:
    """Return the headline, the worst check of every form and tensor, and every check."""
    checks = sorted(report.checks, key=lambda check: -check.difference)
    return "\n".join(
        [
            f"# Parity: {headline(report)}",
            "",
            "Every form of the model is compared with the model's own `forward` in float64 PyTorch. A difference is",
            "|a - b| / max(1, |b|), and `at` is where in the tensor it was largest. Scenarios end in batch x steps;",
            f"the longest run has {report.horizon:,} steps.",
            "",
            *(["Differences at ties failed like any other (strict)."] if report.strict else _TIES),
            "",
            *_equal_bits(report),
            "",
            *_accuracy(report),
            "## The worst check of every form and tensor",
            "",
            *_markdown_rows(report.worst_by_tensor()),
            "",
            "## Every check, worst first",
            "",
            *_markdown_rows(checks),
            "",
        ]
    )


def as_json(report: Report) -> str:
    """Return the result and every check."""
    fields = {
        "passed": report.passed,
        "largest_difference": report.reached,
        "horizon": report.horizon,
        "strict": report.strict,
        "ties": report.ties,
        "undecided_steps": report.undecided,
        "accuracy": None if report.accuracy is None else asdict(report.accuracy),
        "strayed_steps": report.strayed,
        "equal_bits_not_checked": dict(report.not_compared),
    }
    checks = [{**asdict(check), "passed": check.passed} for check in report.checks]
    return json.dumps({**fields, "checks": checks}, indent=1) + "\n"


def _equal_bits(report: Report) -> list[str]:
    """Return a line per form that promises the same bits in every batch: whether it kept it, or was not compared."""
    exact: dict[str, bool] = {}
    for check in report.checks:
        if check.equal_bits:
            exact[check.form] = exact.get(check.form, True) and check.passed
    words = {True: "the same bits in every batch tried", False: "NOT the same bits in every batch"}
    lines = [f"- {form}: a row's results are {words[same]}." for form, same in exact.items()]
    lines += [f"- {line}." for line in not_compared(report)]
    return lines or ["No form here promises a row the same bits in every batch."]


def not_compared(report: Report) -> list[str]:
    """Return a sentence per form whose rows were not compared bit by bit: that they were not, and why."""
    return [
        f"{form}: whether a row has the same bits in every batch was not checked: {why}"
        for form, why in report.not_compared.items()
    ]


def _accuracy(report: Report) -> list[str]:
    """Return a section on what a precision below fp32 costs, if that was measured."""
    if report.accuracy is None:
        return []
    rows = [("", "fp32", "as written"), ("---",) * 3, *report.accuracy.rows()]
    heading = f"## What the precision costs, on {report.accuracy.steps:,} held-out steps"
    return [heading, "", *_markdown(rows), ""]


def _markdown_rows(checks: list[Check]) -> list[str]:
    return _markdown([HEADINGS, ("---",) * len(HEADINGS), *map(cells, checks)])


def _markdown(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]
