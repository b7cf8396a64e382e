"""Runs in turn, and their ratios round by round: what the serving benchmarks share."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import median
from typing import TypeVar

from load import Load
from report import Row, Table

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[], Load]


@dataclass(frozen=True)
class Quantity:
    """A field of `Load` as tables show it.

    Attributes:
        name: what it is called.
        unit: of its figures.
        field: where a `Load` has it.
        scale: what makes figures of its values.
    """

    name: str
    unit: str
    field: str
    scale: float = 1.0

    def of(self, loads: Sequence[Load]) -> list[float]:
        """Return its values, a round each."""
        return [getattr(load, self.field) for load in loads]

    def middle(self, loads: Sequence[Load]) -> float:
        """Return its median."""
        return median(self.of(loads))

    def figure(self, loads: Sequence[Load]) -> float:
        """Return its median in its unit."""
        return self.middle(loads) * self.scale

    def ratio(self, ours: Sequence[Load], theirs: Sequence[Load]) -> float:
        """Return the median of the rounds' ratios: a machine that drifts from round to round leaves it as it is."""
        return median(mine / other for mine, other in zip(self.of(ours), self.of(theirs), strict=True))


REQUESTS = Quantity("requests", "/s", "rate")
EVENTS = Quantity("events", "/s", "rate")
CPU = Quantity("CPU", "µs", "cpu", 1e6)
P50, P99, P999 = (Quantity(name, "ms", name.replace(".", ""), 1e3) for name in ("p50", "p99", "p99.9"))
SERVER, CLIENT = (Quantity(side, "busy", side) for side in ("server", "client"))


def in_turn(runs: Mapping[Key, Run], rounds: int) -> dict[Key, list[Load]]:
    """Return what comes of every run, over rounds that have each of them in turn."""
    results: dict[Key, list[Load]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            results[key].append(run())
    return results


def row(
    name: str,
    loads: Sequence[Load],
    shown: Sequence[Quantity],
    *,
    to: tuple[str, Sequence[Load]] | None = None,
    compared: Sequence[Quantity] = (),
) -> Row:
    """Return the row of a run: its figures, and the ratios of what is compared to those of another run."""
    figures = {f"{quantity.name} {quantity.unit}": quantity.figure(loads) for quantity in shown}
    known = {column: figure for column, figure in figures.items() if not isnan(figure)}
    if to is None:
        return Row(name, {}, known)
    other, theirs = to
    return Row(name, {f"{quantity.name} / {other}": quantity.ratio(loads, theirs) for quantity in compared}, known)


def compare(title: str, rows: Mapping[str, Mapping[str, Sequence[Load]]], quantity: Quantity) -> Table:
    """Return a table of one quantity, with a row for each name."""
    return Table(title, [compared(name, servers, quantity) for name, servers in rows.items()])


def compared(name: str, servers: Mapping[str, Sequence[Load]], quantity: Quantity) -> Row:
    """Return a row of one quantity: the first server's over each other's, and every server's own."""
    (_, first), *others = servers.items()
    ratios = {f"/ {other}": quantity.ratio(first, theirs) for other, theirs in others}
    return Row(name, ratios, {f"{server} {quantity.unit}": quantity.figure(loads) for server, loads in servers.items()})
