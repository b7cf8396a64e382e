"""Run servers in turn and compare them round by round; the serving benchmarks share this."""

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
        name: its name in the tables.
        unit: the unit of the figures.
        field: the field of `Load` that holds it.
        scale: the figure is the field's value times this.
    """

    name: str
    unit: str
    field: str
    scale: float = 1.0

    def of(self, loads: Sequence[Load]) -> list[float]:
        """Return its values, one for each round."""
        return [getattr(load, self.field) for load in loads]

    def middle(self, loads: Sequence[Load]) -> float:
        """Return its median."""
        return median(self.of(loads))

    def figure(self, loads: Sequence[Load]) -> float:
        """Return its median in its unit."""
        return self.middle(loads) * self.scale

    def ratio(self, ours: Sequence[Load], theirs: Sequence[Load]) -> float:
        """Return the median of the rounds' ratios; it stays the same if the machine's speed drifts between rounds."""
        return median(mine / other for mine, other in zip(self.of(ours), self.of(theirs), strict=True))


REQUESTS = Quantity("requests", "/s", "rate")
EVENTS = Quantity("events", "/s", "rate")
CPU = Quantity("CPU", "µs", "cpu", 1e6)
P50, P99, P999 = (Quantity(name, "ms", name.replace(".", ""), 1e3) for name in ("p50", "p99", "p99.9"))
SERVER, CLIENT = (Quantity(side, "busy", side) for side in ("server", "client"))


def in_turn(runs: Mapping[Key, Run], rounds: int) -> dict[Key, list[Load]]:
    """Return the results of every run; each round has every run once, one after the other."""
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
    """Return the row of a run: its figures, and their ratios to those of another run."""
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
    """Return a row of one quantity: the first server's value divided by each other one's, and all values."""
    (_, first), *others = servers.items()
    ratios = {f"/ {other}": quantity.ratio(first, theirs) for other, theirs in others}
    return Row(name, ratios, {f"{server} {quantity.unit}": quantity.figure(loads) for server, loads in servers.items()})
