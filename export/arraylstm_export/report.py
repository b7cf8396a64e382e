"""A parity report as people and programs read it: table, Markdown and JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.parity import Check, Report

_HEADINGS = ("form", "difference", "tensor", "scenario", "at", "ties", "undecided", "strayed", "")
_TIES = (
    "A model that chooses between lanes with nearly equal gates meets ties that float32 cannot decide as float64 does.",
    "A row that comes to one is judged from there on by its single steps. `ties` counts those whose tie fell otherwise",
    "and which are right but for that; `undecided` those of which nothing can be said; `strayed` those where the row's",
    "run, rounded otherwise, met a tie and has left its own single steps.",
)


def as_table(report: Report) -> Table:
    """Return one row per form: its worst check."""
    table = make_table(*_HEADINGS[:4], "")
    table.columns[1].justify = "right"
    for check in report.worst_by_form():
        cells = _cells(check)
        table.add_row(*cells[:4], cells[-1], style="" if check.passed else "red")
    return table


def as_markdown(report: Report) -> str:
    """Return the verdict, one row per form, and every check."""
    checks = sorted(report.checks, key=lambda check: -check.difference)
    return "\n".join(
        [
            f"# Parity: {verdict(report)}",
            "",
            "Every form of the model is compared with its own `forward` in float64 PyTorch; a difference is",
            "|a - b| / max(1, |b|), and `at` is where in the tensor it was largest. Scenarios end in batch x steps;",
            f"the longest run has {report.horizon:,} steps.",
            "",
            *(["Ties were no excuse (strict)."] if report.strict else _TIES),
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
    """Return the verdict and every check."""
    fields = {
        "passed": report.passed,
        "largest_difference": report.reached,
        "horizon": report.horizon,
        "strict": report.strict,
        "ties": report.ties,
        "undecided_steps": report.undecided,
        "accuracy": None if report.accuracy is None else asdict(report.accuracy),
        "strayed_steps": report.strayed,
    }
    checks = [{**asdict(check), "passed": check.passed} for check in report.checks]
    return json.dumps({**fields, "checks": checks}, indent=1) + "\n"


def verdict(report: Report) -> str:
    """Say in a line how it went."""
    tolerance = report.checks[0].tolerance
    word = f"{'passed' if report.passed else 'FAILED'} at tolerance {tolerance:g}"
    ties = f", {report.ties:.2%} of steps with a tie decided otherwise" if report.ties else ""
    undecided = f", {report.undecided:.2%} undecided in float32" if report.undecided else ""
    return f"{word}, largest difference {report.reached:.1e}{ties}{undecided}"


def _equal_bits(report: Report) -> list[str]:
    """Say which forms give a row the same bits in every batch."""
    exact: dict[str, bool] = {}
    for check in report.checks:
        if check.equal_bits:
            exact[check.form] = exact.get(check.form, True) and check.passed
    words = {True: "the same bits in every batch tried", False: "NOT the same bits in every batch"}
    return [f"- {form}: a row's results are {words[same]}." for form, same in exact.items()] or [
        "No form here promises a row the same bits in every batch."
    ]


def _accuracy(report: Report) -> list[str]:
    """Tell what a precision below fp32 costs, where that was measured."""
    if report.accuracy is None:
        return []
    rows = [("", "fp32", "as written"), ("---",) * 3, *report.accuracy.rows()]
    heading = f"## What the precision costs, on {report.accuracy.steps:,} held-out steps"
    return [heading, "", *_markdown(rows), ""]


def _cells(check: Check) -> list[str]:
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


def _markdown_rows(checks: list[Check]) -> list[str]:
    return _markdown([_HEADINGS, ("---",) * len(_HEADINGS), *map(_cells, checks)])


def _markdown(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]
