"""`arraylstm-train`: fit a next-item model to an event file."""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated, NoReturn

import torch
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from arraylstm import __version__, console, saving, training
from arraylstm.cli_options import ItemOptions, ModelOptions, SplitOptions
from arraylstm.data import DataOptions
from arraylstm.errors import one_line
from arraylstm.nextitem import NextItemModel
from arraylstm.preparing import prepare
from arraylstm.training import Metrics, Outcome, TrainingOptions
from arraylstm.training.recipes import settled
from arraylstm.training.snapshots import Snapshots

app = App(name="arraylstm-train", version=__version__, result_action="return_value")


@app.default
def train(
    data: tuple[Path, ...] = (),
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("model.pt"),
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    read: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    items: Annotated[ItemOptions, Parameter(name="*")] = ItemOptions(),
    held_out: Annotated[SplitOptions, Parameter(name="*")] = SplitOptions(),
    shape: Annotated[ModelOptions, Parameter(name="*")] = ModelOptions(),
    options: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
) -> int:
    """Fit a next-item model to event files and write it, with its vocabulary, as one .pt or .safetensors file.

    Sessions are split into training, validation and held-out ones, at random or by time, unless files are given. The
    epoch that predicts the validation sessions best is kept; the figures printed at the end are those of the held-out
    sessions. What is not given is chosen by the data, and printed with the reason. Ctrl-C ends the training with the
    best epoch so far.

    Args:
        data: event files: folders for the files in them, - for the standard input. Without one, a generated web-shop
            log is used.
        output: file to write the model to. If it cannot be written after training, a copy is kept elsewhere.
        overwrite: replace the output file. Without it no file is replaced, nor an earlier model trained further.
        resume: go on with a training that was killed or interrupted, of the same command, to the same result.
        device: torch device to train on: cpu, cuda, cuda:1, ...
    """
    out = console.lasting_console()
    snapshots = Snapshots(output.with_name(f"{output.name}.resume"), resume=resume)
    _check_before_reading(output, overwrite or (resume and snapshots.path.exists()), device, shape)
    prepared = prepare(data, read, items, held_out, options.seed)
    vocabulary, parts = prepared.vocabulary, prepared.parts
    for line in prepared.words:
        out.print(line, markup=False)
    _say_what_is_resumed(out, snapshots)
    shape, options = _settled(shape, options, len(vocabulary), parts, out)
    torch.manual_seed(options.seed)
    model = shape.make(len(vocabulary), vocabulary).to(device)
    model.trained_on = prepared.record
    training.count_predictions(parts[2], model.padding)  # refuses held-out sessions that nothing can be measured on
    saving.try_to_write(model, output)
    outcome = _fit_with_progress(model, parts[0], parts[1], options, out, snapshots)
    saving.write(model, output)  # first, so that nothing else loses the training
    if not outcome.interrupted:
        snapshots.remove()
    out.print(_held_out_table(training.evaluate(model, parts[2], options.batch_size or 64), outcome.best_epoch))
    return _end(out, output, outcome, options, snapshots)


def _say_what_is_resumed(out: Console, snapshots: Snapshots) -> None:
    there = snapshots.path.exists()
    if snapshots.resume:
        said = (
            f"Going on from {snapshots.path}"
            if there
            else f"There is no {snapshots.path} to go on from: beginning anew"
        )
        out.print(said, markup=False, soft_wrap=True)
    elif there:
        out.print(
            f"{snapshots.path} is left from a training; --resume would go on from it", markup=False, soft_wrap=True
        )


def _settled(
    shape: ModelOptions, options: TrainingOptions, num_items: int, parts: list[list[list[int]]], out: Console
) -> tuple[ModelOptions, TrainingOptions]:
    """Return the options with what was left to the data, and print that with the reasons."""
    shape, shape_reasons = shape.settled(num_items)
    options, reasons = settled(options, num_items, parts[0], parts[1])
    for reason in shape_reasons + reasons:
        out.print(f"Defaults: {reason}", markup=False, soft_wrap=True)
    return shape, options


def _end(out: Console, output: Path, outcome: Outcome, options: TrainingOptions, snapshots: Snapshots) -> int:
    """Print what was written and what comes next, and return the program's status."""
    if options.calibrate:
        said = f"Calibrated on the validation sessions: scores times {outcome.factor:.3f}"
        out.print(said, soft_wrap=True)
    out.print(f"Wrote {output}. Next: arraylstm-export {shlex.quote(str(output))}", soft_wrap=True, markup=False)
    if not outcome.interrupted:
        return 0
    ways = "; the same command with --resume goes on" if snapshots.path.exists() else ""
    done = f"after epoch {outcome.epochs} of {options.epochs}"
    out.print(f"Interrupted {done}: the model has the weights of epoch {outcome.best_epoch}{ways}.", soft_wrap=True)
    return 130


def _check_before_reading(output: Path, overwrite: bool, device: str, shape: ModelOptions) -> None:
    _check_output(output, overwrite)
    _check_device(device)
    with torch.device("meta"):
        shape.settled(1)[0].make(1)  # refuses wrong sizes


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix not in (".pt", ".safetensors"):
        raise ValueError(f"--output must end in .pt or .safetensors, got {str(output)!r}")
    if not output.parent.is_dir():
        raise ValueError(f"--output {str(output)!r}: there is no folder {str(output.parent)!r}")
    if output.is_dir():
        raise ValueError(f"--output {str(output)!r} is a folder; name a file in it")
    try:
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise ValueError(f"--output {str(output)!r} cannot be written: {error.strerror}") from None
    if output.exists() and not overwrite:
        raise ValueError(
            f"--output {str(output)!r} exists: pass --overwrite to replace it, or --output FILE to keep it"
        )


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} cannot be used by this torch: {one_line(error)}") from None


def _fit_with_progress(
    model: NextItemModel,
    train: list[list[int]],
    validation: list[list[int]],
    options: TrainingOptions,
    out: Console,
    snapshots: Snapshots,
) -> Outcome:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[speed]:>8,.0f} items/s")
    with ProgressBar(*columns, TextColumn("loss {task.fields[loss]:.4f}"), TimeRemainingColumn(), console=out) as bar:
        task = bar.add_task("", total=None, loss=float("nan"), speed=0.0)
        epochs = options.epochs or 0

        def show(progress: training.Progress) -> None:
            completed = (progress.epoch - 1) * progress.total + progress.done
            bar.update(
                task,
                description=f"epoch {progress.epoch}/{epochs}",
                completed=completed,
                total=epochs * progress.total,
                loss=progress.loss,
                speed=completed / max(bar.tasks[task].elapsed or 0.0, 1e-9),
            )
            if progress.validation is not None:
                bar.print(_epoch_line(progress, progress.validation))
                if snapshots.fault:
                    bar.print(f"{snapshots.path}, to resume from, cannot be written: {snapshots.fault}", markup=False)

        return training.fit(model, train, validation, options, show, snapshots)


def _epoch_line(progress: training.Progress, validation: Metrics) -> str:
    return (
        f"epoch {progress.epoch:3}  loss {progress.loss:.4f}, validation {validation.loss:.4f}  "
        f"hit@20 {validation.hit20:.4f}  MRR@20 {validation.mrr20:.4f}"
    )


def _held_out_table(metrics: Metrics, best_epoch: int) -> Table:
    figures = {
        "predictions": f"{metrics.predictions}",
        "top-1": f"{metrics.top1:.4f}",
        "top-5": f"{metrics.top5:.4f}",
        "top-10": f"{metrics.top10:.4f}",
        "hit@20": f"{metrics.hit20:.4f}",
        "MRR": f"{metrics.mrr:.4f}",
        "MRR@20": f"{metrics.mrr20:.4f}",
        "perplexity": f"{metrics.perplexity:.3f}",
    }
    table = console.make_table(*figures, title=f"Held-out sessions, weights of epoch {best_epoch}")
    table.add_row(*figures.values())
    return table


def main() -> NoReturn:
    """Run the program."""
    console.run(app)
