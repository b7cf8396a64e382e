"""`arraylstm-train`: fit a next-item model to an event file."""

import shlex
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, NoReturn

import torch
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from arraylstm import __version__, console, saving, training
from arraylstm.cells import CELLS
from arraylstm.checks import require_positive
from arraylstm.data import DataOptions, Sessions, read_sessions, split
from arraylstm.errors import one_line
from arraylstm.eventlog import generate_sessions
from arraylstm.model import NextItemModel
from arraylstm.training import Metrics, TrainingOptions
from arraylstm.vocabulary import Vocabulary

app = App(name="arraylstm-train", version=__version__, result_action="return_value")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model that is fitted."""

    cell: Annotated[str, Parameter(help=f"Recurrent cell: {', '.join(CELLS)}.")] = "array"
    hidden_size: int = 64
    """Hidden units of a layer."""
    k: int = 4
    """Memory cells a unit, for the cells that have several."""
    num_layers: int = 1
    """Layers of cells."""
    embedding_size: int = 64
    """Width of the item embedding; 0 feeds one-hot vectors."""
    dropout: float = 0.0
    """Probability of dropping an output of a layer while training."""
    tied: bool = False
    """Score items by their own embeddings."""
    learned_start: bool = False
    """Learn the state that sessions start from, instead of zeros."""

    def make(self, num_items: int, vocabulary: Vocabulary | None = None) -> NextItemModel:
        """Construct the model for a number of items; raises what its constructor does."""
        arguments = {**asdict(self), "embedding_size": self.embedding_size or None}
        return NextItemModel(**arguments, num_items=num_items, vocabulary=vocabulary)


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which sessions are kept from training."""

    holdout: float = 0.2
    """Share of sessions that the reported figures are measured on."""
    validation: float = 0.1
    """Share of sessions that choose the best epoch."""

    def __post_init__(self) -> None:
        """Raise ValueError for shares that leave nothing to train on."""
        for name in ("holdout", "validation"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        if self.holdout + self.validation >= 1:
            raise ValueError(
                f"holdout and validation must leave sessions to train on, got {self.holdout} and {self.validation}"
            )


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """Which sessions and items there are."""

    min_count: int = 1
    """Items seen less often share one unknown item; 1 keeps every item."""
    generated_sessions: int = 2000
    """Sessions to generate where no DATA is given."""

    def __post_init__(self) -> None:
        """Raise ValueError for counts that leave no item."""
        require_positive("min_count", self.min_count)
        require_positive("generated_sessions", self.generated_sessions)


@app.default
def train(
    data: Path | None = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("model.pt"),
    overwrite: bool = False,
    device: str = "cpu",
    read: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    items: Annotated[ItemOptions, Parameter(name="*")] = ItemOptions(),
    held_out: Annotated[SplitOptions, Parameter(name="*")] = SplitOptions(),
    shape: Annotated[ModelOptions, Parameter(name="*")] = ModelOptions(),
    options: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
) -> int:
    """Fit a next-item model to an event file and write it, with its vocabulary, as one .pt or .safetensors file.

    Sessions are split at random into training, validation and held-out ones. The epoch with the lowest validation loss
    is kept; the figures printed at the end are those of the held-out sessions.

    Args:
        data: event file; without one, a generated web-shop log is used.
        output: file to write the model to. If it cannot be written after training, a copy is kept elsewhere.
        overwrite: replace the output file. Without it no file is replaced, nor an earlier model trained further.
        device: torch device to train on: cpu, cuda, cuda:1, ...
    """
    out = console.lasting_console()
    _check_before_reading(output, overwrite, device, shape)
    source, sessions = _sessions(data, read, items, options.seed)
    vocabulary = Vocabulary.from_sessions(sessions, items.min_count)
    shares = (held_out.validation, held_out.holdout)
    parts = split([vocabulary.encode(session) for session in sessions], shares, options.seed)
    out.print(_describe(source, sessions, vocabulary, parts), markup=False)
    torch.manual_seed(options.seed)
    model = shape.make(len(vocabulary), vocabulary).to(device)
    training.count_predictions(parts[2], model.padding)  # refuses held-out sessions that nothing can be measured on
    saving.try_to_write(model, output)
    best = _fit_with_progress(model, parts[0], parts[1], options, out)
    saving.write(model, output)  # first, so that nothing else loses the training
    out.print(_held_out_table(training.evaluate(model, parts[2], options.batch_size), best))
    out.print(f"Wrote {output}. Next: arraylstm-export {shlex.quote(str(output))}", soft_wrap=True, markup=False)
    return 0


def _sessions(data: Path | None, read: DataOptions, items: ItemOptions, seed: int) -> tuple[str, Sessions]:
    """Return where the sessions are from, in words, and the sessions."""
    if data is None:
        for field in fields(read):
            if getattr(read, field.name) != field.default:
                raise ValueError(f"--{field.name.replace('_', '-')} describes an event file: give one, or leave it out")
        return "Generated log", generate_sessions(items.generated_sessions, seed)
    sessions, form = read_sessions(data, read)
    return f"{data}, read as {form}", sessions


def _check_before_reading(output: Path, overwrite: bool, device: str, shape: ModelOptions) -> None:
    _check_output(output, overwrite)
    _check_device(device)
    with torch.device("meta"):
        shape.make(1)  # refuses wrong sizes


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
            f"--output {str(output)!r} exists; training resumes nothing: pass --overwrite to replace it, "
            "or --output FILE to keep it"
        )


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} cannot be used by this torch: {one_line(error)}") from None


def _describe(source: str, sessions: Sessions, vocabulary: Vocabulary, parts: list[list[list[int]]]) -> str:
    events = sum(map(len, sessions))
    sizes = ", ".join(f"{len(part)} {name}" for part, name in zip(parts, ("train", "validation", "held out")))
    return f"{source}: {len(sessions)} sessions ({sizes}), {events} events, {len(vocabulary)} items"


def _fit_with_progress(
    model: NextItemModel,
    train: list[list[int]],
    validation: list[list[int]],
    options: TrainingOptions,
    out: Console,
) -> int:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[speed]:>8,.0f} items/s")
    with ProgressBar(*columns, TextColumn("loss {task.fields[loss]:.4f}"), TimeRemainingColumn(), console=out) as bar:
        task = bar.add_task("", total=None, loss=float("nan"), speed=0.0)

        def show(progress: training.Progress) -> None:
            completed = (progress.epoch - 1) * progress.total + progress.done
            bar.update(
                task,
                description=f"epoch {progress.epoch}/{options.epochs}",
                completed=completed,
                total=options.epochs * progress.total,
                loss=progress.loss,
                speed=completed / max(bar.tasks[task].elapsed or 0.0, 1e-9),
            )
            if progress.validation is not None:
                bar.print(_epoch_line(progress, progress.validation))

        return training.fit(model, train, validation, options, show)


def _epoch_line(progress: training.Progress, validation: Metrics) -> str:
    return (
        f"epoch {progress.epoch:3}   loss {progress.loss:.4f}   validation: loss {validation.loss:.4f}   "
        f"top-1 {validation.top1:.4f}   MRR {validation.mrr:.4f}"
    )


def _held_out_table(metrics: Metrics, best_epoch: int) -> Table:
    figures = {
        "predictions": f"{metrics.predictions}",
        "top-1": f"{metrics.top1:.4f}",
        "top-5": f"{metrics.top5:.4f}",
        "top-10": f"{metrics.top10:.4f}",
        "MRR": f"{metrics.mrr:.4f}",
        "perplexity": f"{metrics.perplexity:.3f}",
    }
    table = console.make_table(*figures, title=f"Held-out sessions, weights of epoch {best_epoch}")
    table.add_row(*figures.values())
    return table


def main() -> NoReturn:
    """Run the program."""
    console.run(app)
