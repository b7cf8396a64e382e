"""Print and write tables of ratios; all benchmark scripts use this.

Ratios of one run carry over to other machines; the figures beside them are only true of this machine and this hour.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from arraylstm.console import show_any_text

_DIGITS = 4  # digits of a figure, not fewer than it has before the point
_UNBOUNDED = 1000


@dataclass(frozen=True)
class Row:
    """One measured thing: its ratios to others, and its figures, column by column."""

    name: str
    ratios: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows to show together, and notes for their reader."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def output() -> Console:
    """Return the console for tables; for a file or a pipe it is wide enough not to cut them off."""
    show_any_text()
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_UNBOUNDED)


def show(table: Table, console: Console) -> None:
    """Print a table, ratios first; rows without ratios are dim."""
    ratios = list(dict.fromkeys(column for row in table.rows for column in row.ratios))
    figures = list(dict.fromkeys(column for row in table.rows for column in row.figures))
    grid = Grid("", *ratios, *figures, box=box.SIMPLE)
    grid.columns[0].no_wrap = True
    for column in grid.columns[1:]:
        column.justify = "right"
    for row in table.rows:
        cells = [f"{row.ratios[column]:.2f}" if column in row.ratios else "-" for column in ratios]
        cells += [_shown(row.figures[column]) if column in row.figures else "-" for column in figures]
        grid.add_row(row.name, *cells, style=None if row.ratios else "dim")
    for line in (table.title, *table.notes):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if table.rows:
        console.print(grid)


def _shown(figure: float) -> str:
    whole = len(f"{abs(figure):.0f}")
    return f"{figure:,.{max(0, _DIGITS - whole)}f}"


def write_json(path: Path, settings: dict[str, Any], packages: Sequence[str], tables: Iterable[Table]) -> None:
    """Write the results, the settings and the versions of those packages that are installed."""
    versions = {distribution.name: distribution.version for distribution in distributions()}
    document = {
        "settings": settings,
        "versions": {name: versions[name] for name in packages if name in versions},
        "tables": [asdict(table) for table in tables],
    }
    path.write_text(json.dumps(document, indent=2, default=str) + "\n")
