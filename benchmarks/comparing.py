"""Runs in turn, and their ratios round by round: what the serving benchmarks share."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from load import Load
from report import Row, Table

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[], Load]

MS, US = 1e3, 1e6
"""Of a second."""


def in_turn(runs: Mapping[Key, Run], rounds: int) -> dict[Key, list[Load]]:
    """Return what comes of every run, over rounds that have each of them in turn."""
    results: dict[Key, list[Load]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            results[key].append(run())
    return results


def values(loads: Sequence[Load], field: str) -> list[float]:
    """Return a field of every round."""
    return [getattr(load, field) for load in loads]


def middle(loads: Sequence[Load], field: str) -> float:
    """Return a field's median."""
    return median(values(loads, field))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: a machine that drifts from round to round leaves it as it is."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def compare(title: str, rows: Mapping[str, Mapping[str, Sequence[float]]], unit: str, scale: float = 1.0) -> Table:
    """Return a table of one quantity: in each row the first server's over each other's, and every server's own."""
    return Table(title, [_compared(name, servers, unit, scale) for name, servers in rows.items()])


def _compared(name: str, servers: Mapping[str, Sequence[float]], unit: str, scale: float) -> Row:
    (_, first), *others = servers.items()
    ratios = {f"/ {other}": ratio(first, theirs) for other, theirs in others}
    return Row(name, ratios, {f"{server} {unit}": median(rounds) * scale for server, rounds in servers.items()})
