"""`arraylstm-evaluate`: measure what a bundle predicts, and find sessions that are anomalies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import Progress

from arraylstm import __version__, console
from arraylstm.checks import require_positive
from arraylstm.data import DataOptions
from arraylstm_export.errors import ExportError
from arraylstm_export.evaluation import report, tables
from arraylstm_export.evaluation.detect import Options, detect
from arraylstm_export.evaluation.files import names, read
from arraylstm_export.evaluation.run import evaluate
from arraylstm_export.evaluation.sessions import Policy

LONGEST_LIST = 1000

app = App(name="arraylstm-evaluate", version=__version__, result_action="return_value")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is measured."""

    cutoffs: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative=())] = (1, 5, 10, 20)
    """Lengths of the list of recommendations to give figures for; tables have the longest."""
    train: Path | None = None
    """Event file that the model was trained on: baselines are fitted on it."""

    def __post_init__(self) -> None:
        """Raise ValueError for lists without an item, and for none."""
        if not self.cutoffs:
            raise ValueError("cutoffs must name one length or more, got none")
        for length in self.cutoffs:
            require_positive("cutoffs", length)
            if length > LONGEST_LIST:
                raise ValueError(f"cutoffs must be at most {LONGEST_LIST}, got {length}")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where figures are written besides the terminal."""

    json: Path | None = None
    """File to write all figures to, as JSON."""
    report: Path | None = None
    """File to write one HTML page to, with tables and pictures; needs the extra `plot`."""


@app.default
def main_command(
    bundle: Path,
    data: tuple[Path, ...] = (),
    /,
    *,
    unknown_items: Policy | None = None,
    anomalies: Annotated[bool, Parameter(negative=())] = False,
    wanted: Annotated[Figures, Parameter(name="*")] = Figures(),
    detection: Annotated[Options, Parameter(name="*", group="With --anomalies")] = Options(),
    output: Annotated[Output, Parameter(name="*")] = Output(),
    reading: Annotated[DataOptions, Parameter(name="*", group="How event files are read")] = DataOptions(),
) -> int:
    """Measure a bundle's step graph, the one that is served, on sessions that the model was not trained on.

    Args:
        bundle: folder that arraylstm-export wrote.
        data: event files: folders for the files in them, - for the standard input.
        unknown_items: what becomes of an item that the model has no label for. model: it is the model's unknown item,
            and refused if there is none; reject: it is refused; skip: it is left out and counts as not predicted
            [default: model; with --anomalies and a model without an unknown item, skip].
        anomalies: score sessions, and choose the score above which one is an anomaly.
    """
    out = _console()
    report.check(output.report)
    _check_folders({"json": output.json, "report": output.report, "scores": detection.scores})
    if anomalies:
        _refuse_changed(wanted, "--anomalies measures no recommendations")
        found = _detect(bundle, data, detection, reading, unknown_items, out)
    else:
        _refuse_changed(detection, "finds anomalies: give --anomalies too")
        found = _measure(bundle, data, wanted, reading, unknown_items or "model", out)
    _write(found, output, out)
    return 0


def _check_folders(files: dict[str, Path | None]) -> None:
    """Raise ExportError for a file that has no folder to be written in, before the work and not after it."""
    for name, path in files.items():
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            raise ExportError(f"--{name} {str(path)!r}: must be a file in a folder that exists")


def _refuse_changed(options: Figures | Options, why: str) -> None:
    """Raise ExportError for an option that is given and would not be used."""
    for field in fields(options):
        if getattr(options, field.name) != field.default:
            raise ExportError(f"--{field.name.replace('_', '-')}: {why}")


def _measure(
    bundle: Path, data: Sequence[Path], wanted: Figures, reading: DataOptions, policy: Policy, out: Console
) -> dict[str, Any]:
    if not data:
        raise ExportError("give an event file to measure the model on; see arraylstm-evaluate --help")
    sessions, words = read(data, reading)
    _say(out, words)
    train: Sequence[Sequence[str]] = ()
    if wanted.train is not None:
        train, words = read(wanted.train, reading)
        _say(out, f"baselines from {words}")
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("sessions", total=len(sessions))
        found = evaluate(
            bundle,
            sessions,
            train,
            cutoffs=wanted.cutoffs,
            unknown_items=policy,
            on_batch=lambda count: bar.advance(task, count),
        )
    _show(found, max(wanted.cutoffs), out)
    return {"bundle": str(bundle), "data": names(data), "unknown_items": policy, "predictors": found}


def _show(found: list[dict[str, Any]], depth: int, out: Console) -> None:
    model = found[0]
    unknown = f", {model['unknown']:,} of them of items that the model does not know" if model["unknown"] else ""
    _say(out, f"{model['predictions']:,} predictions{unknown}")
    for lists in tables.LISTS:
        out.print(tables.quality_table(found, lists, depth))
    out.print(tables.groups_table(model["by_position"], "positions", depth))
    if model["by_popularity"]:
        out.print(tables.groups_table(model["by_popularity"], "quarter", depth))
    for line in tables.comparison_lines(found, depth) if len(found) > 1 else ():
        _say(out, line)


def _detect(
    bundle: Path, data: Sequence[Path], options: Options, reading: DataOptions, policy: Policy | None, out: Console
) -> dict[str, Any]:
    found = detect(bundle, data, options, reading, policy, lambda words: _say(out, words))
    for line in tables.threshold_lines(found):
        _say(out, line)
    if "detection" in found:
        out.print(tables.detection_table(found["detection"]))
    if options.normal is not None and options.keep:
        _say(out, f"Wrote the threshold into the manifest of {bundle}.")
    return {"bundle": str(bundle), **found}


def _write(found: dict[str, Any], output: Output, out: Console) -> None:
    if output.json is not None:
        output.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _say(out, f"Wrote {output.json}.")
    if output.report is not None:
        output.report.write_text(report.page(found), encoding="utf-8")
        _say(out, f"Wrote {output.report}.")


def _say(out: Console, words: str) -> None:
    out.print(words, soft_wrap=True, markup=False, highlight=False)


def _console() -> Console:
    """Return where tables are printed: on the terminal, or without a limit to their width into a file or a pipe."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=LONGEST_LIST)


def main() -> NoReturn:
    """Run the program."""
    console.run(app)
