"""A parity report as people and programs read it: table, Markdown and JSON."""

import json
from dataclasses import asdict

from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.parity import Check, Report

_HEADINGS = ("form", "difference", "tensor", "scenario", "at", "undecided", "")


def as_table(report: Report) -> Table:
    """Return one row per form: its worst check."""
    table = make_table(*_HEADINGS[:4], "", title=f"Parity with float64 PyTorch: {_verdict(report)}")
    for check in report.worst_by_form():
        cells = _cells(check)
        table.add_row(*cells[:4], cells[-1], style="" if check.passed else "red")
    return table


def as_markdown(report: Report) -> str:
    """Return the verdict, one row per form, and every check."""
    checks = sorted(report.checks, key=lambda check: -check.difference)
    return "\n".join(
        [
            f"# Parity: {_verdict(report)}",
            "",
            "Every form of the model is compared with its own `forward` in float64 PyTorch; a difference is",
            "|a - b| / max(1, |b|), and `at` is where in the tensor it was largest. Undecided steps are over the",
            "tolerance, but so is the model itself with its weights moved by less than float32 resolves (a choice",
            "between equal gates): they are not compared. Scenarios end in batch x steps.",
            "",
            "## The worst check of every form",
            "",
            *_markdown_rows(report.worst_by_form()),
            "",
            "## Every check, worst first",
            "",
            *_markdown_rows(checks),
            "",
        ]
    )


def as_json(report: Report) -> str:
    """Return the verdict and every check."""
    fields = {"passed": report.passed, "largest_difference": report.reached, "undecided_steps": report.undecided}
    checks = [{**asdict(check), "passed": check.passed} for check in report.checks]
    return json.dumps({**fields, "checks": checks}, indent=1) + "\n"


def _verdict(report: Report) -> str:
    tolerance = report.checks[0].tolerance
    word = f"{'passed' if report.passed else 'FAILED'} at tolerance {tolerance:g}"
    undecided = f", {report.undecided:.1%} of steps undecided in float32" if report.undecided else ""
    return f"{word}, largest difference {report.reached:.1e}{undecided}"


def _cells(check: Check) -> list[str]:
    return [
        check.form,
        f"{check.difference:.1e}",
        check.tensor,
        f"{check.scenario}, {check.batch} x {check.steps}",
        str(list(check.where)),
        str(check.undecided_steps),
        "ok" if check.passed else "FAILED",
    ]


def _markdown_rows(checks: list[Check]) -> list[str]:
    rows = [list(_HEADINGS), ["---"] * len(_HEADINGS), *map(_cells, checks)]
    return ["| " + " | ".join(row) + " |" for row in rows]
