"""Train every cell on one data set, with as many parameters and as many epochs each, and draw learning curves.

    python benchmarks/comparison.py EVENTS -o RESULTS

trains a next-item model of each cell (hidden sizes chosen so that all have about as many parameters), and writes
RESULTS.json, RESULTS.png and a table. Runs that are in RESULTS.json already are not trained again.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from time import process_time
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console

from arraylstm import CELLS, NextItemModel, Vocabulary, console
from arraylstm.data import DataOptions, read_sessions, split
from arraylstm.training import Metrics, Progress, TrainingOptions, evaluate, fit
from arraylstm.training.recipes import settled

app = App(name="comparison", result_action="return_value")

SPLIT = (0.1, 0.2)
MORE_LANES = ("array", "stochastic", "stochastic-memory", "stochastic-memory-half")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the models, and how many runs they get."""

    parameters: int = 50_000
    """Parameters of each model, as nearly as its hidden size allows."""
    embedding_size: int = 32
    """Width of the item embedding."""
    seeds: int = 1
    """Runs of each cell, each with other weights and another order of sessions, but the same split."""


@dataclass(frozen=True)
class Run:
    """One trained model."""

    cell: str
    k: int
    seed: int
    hidden_size: int
    parameters: int
    seconds: float
    """CPU time of training."""
    validation: list[float]
    """Mean cross-entropy in nats after each epoch."""
    held_out: Metrics

    @property
    def name(self) -> str:
        """The cell, and its number of lanes if it has lanes."""
        return self.cell if self.k == 1 else f"{self.cell}, k={self.k}"


@app.default
def main(
    data: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    title: str | None = None,
    read: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    options: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
) -> int:
    """Train every cell on an event file and compare their predictions of held-out sessions.

    Args:
        data: event file.
        output: path of the results, without a suffix.
        title: name of the data in the picture; by default the file's name.
    """
    torch.set_num_threads(1)
    out = Console()
    sessions, _ = read_sessions(data, read)
    vocabulary = Vocabulary.from_sessions(sessions)
    parts = split([vocabulary.encode(session) for session in sessions], SPLIT, options.seed)
    options, _ = settled(options, len(vocabulary), parts[0], parts[1])
    settings = {"sessions": _digest(parts), **asdict(sizes), **asdict(options)}
    runs = _read(output.with_suffix(".json"), settings)
    for seed in range(sizes.seeds):
        for cell, k in contestants():
            if (cell, k, seed) not in {(run.cell, run.k, run.seed) for run in runs}:
                runs.append(train(cell, k, seed, vocabulary, parts, sizes, options))
                _write(output.with_suffix(".json"), settings, runs)
                out.print(_line(runs[-1]))
    _table(runs, out)
    heading = f"{title or data.name}: {sizes.parameters:,} parameters, {options.epochs} epochs"
    draw(runs, heading).savefig(output.with_suffix(".png"), dpi=110)
    return 0


def contestants() -> list[tuple[str, int]]:
    """Return the cells and their lanes: two lanes as in the paper, and for some cells four too.

    `stochastic-memory-half` has four lanes only: with two it would be the same as `stochastic-memory`.
    """
    laneless = ("lstm",)
    two = [(cell, 1 if cell in laneless else 2) for cell in CELLS if cell != "stochastic-memory-half"]
    return two + [(cell, 4) for cell in MORE_LANES]


def train(
    cell: str,
    k: int,
    seed: int,
    vocabulary: Vocabulary,
    parts: list[list[list[int]]],
    sizes: Sizes,
    options: TrainingOptions,
) -> Run:
    """Train one model, and measure it on the held-out sessions with the weights of its best epoch."""
    hidden_size = width_for(cell, k, len(vocabulary), sizes)
    torch.manual_seed(seed)
    model = NextItemModel(cell, len(vocabulary), hidden_size, k, embedding_size=sizes.embedding_size)
    validation: list[float] = []

    def note(progress: Progress) -> None:
        if progress.validation is not None:
            validation.append(progress.validation.loss)

    start = process_time()
    fit(model, parts[0], parts[1], TrainingOptions(**asdict(options) | {"seed": seed}), note)
    seconds = process_time() - start
    held_out = evaluate(model, parts[2], options.batch_size)
    return Run(cell, k, seed, hidden_size, _parameters(model), seconds, validation, held_out)


def width_for(cell: str, k: int, num_items: int, sizes: Sizes) -> int:
    """Return the hidden size whose number of parameters is nearest to the one wanted."""
    step = k if cell == "lstm2002" else 1  # its units are blocks of k

    def distance(hidden_size: int) -> int:
        with torch.device("meta"):
            model = NextItemModel(cell, num_items, hidden_size, k, embedding_size=sizes.embedding_size)
        return abs(_parameters(model) - sizes.parameters)

    widths = range(step, 2 * math.isqrt(sizes.parameters), step)
    low, high = 0, len(widths) - 1
    while low < high:  # the distance falls, then rises
        middle = (low + high) // 2
        low, high = (low, middle) if distance(widths[middle]) < distance(widths[middle + 1]) else (middle + 1, high)
    return widths[low]


def _parameters(model: NextItemModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# -- results ----------------------------------------------------------------------------------------------------


def _digest(parts: list[list[list[int]]]) -> str:
    """Return a hash of the sessions and their split."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(path: Path, settings: dict[str, Any]) -> list[Run]:
    """Return the runs of an earlier call with the same settings and sessions; this call may add more seeds."""
    if not path.exists():
        return []
    document: dict[str, Any] = json.loads(path.read_text())
    for name, value in settings.items():
        if name != "seeds" and document["settings"].get(name) != value:
            raise ValueError(
                f"{path} holds runs with {name} {document['settings'].get(name)}, not {value}; name another file"
            )
    return [Run(**{**run, "held_out": Metrics(**run["held_out"])}) for run in document["runs"]]


def _write(path: Path, settings: dict[str, Any], runs: list[Run]) -> None:
    path.write_text(json.dumps({"settings": settings, "runs": [asdict(run) for run in runs]}, indent=1) + "\n")


def _by_name(runs: list[Run]) -> dict[str, list[Run]]:
    """Return the runs of each contestant, lowest held-out loss first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return dict(sorted(groups.items(), key=lambda group: mean(run.held_out.loss for run in group[1])))


def _line(run: Run) -> str:
    return f"{run.name}, seed {run.seed}: {run.held_out.loss / math.log(2):.4f} bits, {run.seconds:.0f} s"


def _table(runs: list[Run], out: Console) -> None:
    table = console.make_table("", "H", "bits", "lowest", "highest", "top-1", "MRR", "s")
    for name, group in _by_name(runs).items():
        bits = [run.held_out.loss / math.log(2) for run in group]
        table.add_row(
            name,
            str(group[0].hidden_size),
            *(f"{value:.4f}" for value in (mean(bits), min(bits), max(bits))),
            f"{mean(run.held_out.top1 for run in group):.4f}",
            f"{mean(run.held_out.mrr for run in group):.4f}",
            f"{mean(run.seconds for run in group):.0f}",
        )
    out.print(table)


def draw(runs: list[Run], title: str) -> Figure:
    """Draw the learning curves, and beside them the held-out loss of every run."""
    groups = _by_name(runs)
    figure = Figure(figsize=(11, 5), layout="constrained")
    curves, final = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(title)
    for row, group in enumerate(groups.values()):
        color = colormaps["turbo"](row / max(len(groups) - 1, 1))  # better cells are bluer, in both plots
        losses = [mean(nats) / math.log(2) for nats in zip(*(run.validation for run in group), strict=True)]
        curves.plot(range(1, len(losses) + 1), losses, color=color, linewidth=1.2)
        bits = [run.held_out.loss / math.log(2) for run in group]
        final.plot(bits, [row] * len(bits), "o", color=color, alpha=0.5)
        final.plot(mean(bits), row, "|", color=color, markersize=16)
    ends = [run.validation[-1] / math.log(2) for run in runs]
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.set(xlabel="epoch", ylabel="validation, bits an item", ylim=(0.98 * min(ends), 1.2 * max(ends)))
    final.set(xlabel="held out, bits an item (best first)", yticks=range(len(groups)), yticklabels=groups)
    final.invert_yaxis()
    for axes in (curves, final):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    console.run(app)
