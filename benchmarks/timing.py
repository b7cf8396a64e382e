"""Interleaved timing: what the benchmark scripts share.

Every callable runs in every round, one after the other, so that a busy machine slows all of them alike, and what is
timed is the CPU time of this process: with one thread that is the wall time less what other processes took.
What is shown are the medians' ratios, which travel from machine to machine better than times do.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table as Grid

Call = Callable[[], object]

_SAMPLE_SECONDS = 0.01  # a shorter call is repeated this long for one sample
_PACKAGES = ("torch", "onnxruntime", "array-lstm")


@dataclass(frozen=True, kw_only=True)
class TimingOptions:
    """How it is measured."""

    rounds: int = 5
    """Rounds in which everything is run once; the median round is shown."""
    json: Path | None = None
    """File to write the results to as JSON."""

    def __post_init__(self) -> None:
        """Refuse to measure nothing."""
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds!r}")


@dataclass(frozen=True)
class Row:
    """One measured thing, and the seconds of what it is divided by, column by column."""

    name: str
    seconds: float
    references: dict[str, float] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, float]:
        """Time over each reference's time: below 1 is faster than the reference."""
        return {column: self.seconds / seconds for column, seconds in self.references.items()}


@dataclass(frozen=True)
class Table:
    """Rows to show together."""

    title: str
    rows: list[Row]


def single_thread() -> None:
    """Hold torch to the calling thread, and to reproducible weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def measure(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Return each callable's median CPU seconds a call, over rounds that run every callable in turn."""
    repeats = {name: _warm_up(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(_seconds(call, repeats[name]))
    return {name: median(values) for name, values in samples.items()}


def _warm_up(call: Call) -> int:
    """Run the callable twice, and return how many runs of it fill a sample."""
    call()
    return max(1, math.ceil(_SAMPLE_SECONDS / _seconds(call, 1)))


def _seconds(call: Call, repeat: int) -> float:
    start = process_time()
    for _ in range(repeat):
        call()
    return (process_time() - start) / repeat


def show(table: Table, console: Console) -> None:
    """Print a table: ratios first, milliseconds of this run beside them."""
    columns = list(dict.fromkeys(column for row in table.rows for column in row.references))
    grid = Grid("", *(f"/ {column}" for column in columns), "ms", title=table.title, box=box.SIMPLE)
    grid.columns[0].no_wrap = True
    for column in grid.columns[1:]:
        column.justify = "right"
    for row in table.rows:
        shown = [f"{row.ratios[column]:.2f}" if column in row.ratios else "-" for column in columns]
        grid.add_row(row.name, *shown, f"{row.seconds * 1e3:.3f}", style="dim" if not row.references else None)
    console.print(grid)


def write_json(path: Path, settings: dict[str, Any], tables: Iterable[Table]) -> None:
    """Write what was measured, with which settings and versions."""
    results = [{"title": t.title, "rows": [asdict(row) | {"ratios": row.ratios} for row in t.rows]} for t in tables]
    document = {"settings": settings, "versions": {name: version(name) for name in _PACKAGES}, "tables": results}
    path.write_text(json.dumps(document, indent=2) + "\n")
