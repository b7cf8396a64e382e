"""What a form of the model is tried on, and the ways of running it through."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from arraylstm_export.errors import ExportError
from arraylstm_export.runners import Array, Result, Runner
from arraylstm_export.signature import State

_HORIZON_ROWS = 2  # of a single row, torch rounds one step and many differently
_HORIZON_PIECE = 500
_LARGE = 4.0  # where small states hide what a weight does
_FEWEST_ROWS, _FEWEST_STEPS = 64, 17  # are run at once whatever their logits take
_LARGEST_LOGITS = 10_000_000
_MOST_ITEM_LOGITS = 500_000_000
_MOST_HORIZON_LOGITS = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The sizes that forms are tried at."""

    batches: Annotated[tuple[int, ...], Parameter(parse=False)] = (1, 2, 3, 7, 64)
    lengths: Annotated[tuple[int, ...], Parameter(parse=False)] = (1, 2, 17, 100)
    ragged: Annotated[tuple[tuple[int, ...], ...], Parameter(parse=False)] = (
        (17, 0, 1, 17, 5, 16, 9),
        (100, 37, 0, 64),
    )
    """Lengths of the rows of batches."""
    chunkings: Annotated[int, Parameter(parse=False)] = 3
    """Ways, drawn at random, to cut each of those into calls."""
    horizon: int = 10_000
    """Steps of the longest run that is compared."""

    def __post_init__(self) -> None:
        """Refuse a run without steps."""
        if self.horizon < 1:
            raise ExportError(f"horizon must be at least 1, got {self.horizon!r}")


@dataclass(frozen=True)
class Scenario:
    """A batch to run: items (B, S) and lengths (B) int64, one array (B, *shape) per state."""

    name: str
    items: Array
    lengths: Array
    state: list[Array]

    def rows(self, wanted: Array | slice) -> "Scenario":
        """Return the scenario of some of its rows."""
        return Scenario(self.name, self.items[wanted], self.lengths[wanted], [tensor[wanted] for tensor in self.state])

    def piece(self, start: int, end: int, state: list[Array]) -> "Scenario":
        """Return the scenario's steps from start to end, begun in the given state."""
        return Scenario(self.name, self.items[:, start:end], np.clip(self.lengths - start, 0, end - start), state)


def all_scenarios(
    num_items: int, states: Sequence[State], source: np.random.Generator, coverage: Coverage = Coverage()
) -> Iterator[Scenario]:
    """Draw every scenario; a batch whose logits would fill memory is left out, a horizon of too many is shorter."""
    for batch in coverage.batches:
        for steps in coverage.lengths:
            if _fits(batch, steps, num_items):
                full = np.full(batch, steps)
                yield make_scenario("zero state", num_items, states, full, source, scale=0.0)
                yield make_scenario("random state", num_items, states, full, source)
    rows, steps = max(coverage.batches), max(coverage.ragged[0])
    large = np.full(rows, max(1, min(steps, steps_at_once(num_items) // rows)))
    yield make_scenario("large state", num_items, states, large, source, scale=_LARGE)
    yield from _every_item(num_items, states, source)
    for lengths in coverage.ragged:
        if lengths == coverage.ragged[0] or _fits(len(lengths), max(lengths), num_items):
            ragged = make_scenario("ragged", num_items, states, np.array(lengths), source)
            yield _junk_past_lengths(ragged, [np.iinfo(np.int64).max, -1, num_items])
    longest = max(max(coverage.lengths), _MOST_HORIZON_LOGITS // (_HORIZON_ROWS * num_items))
    long = np.full(_HORIZON_ROWS, min(coverage.horizon, longest))
    yield make_scenario("horizon", num_items, states, long, source, scale=0.0)


def pieces(scenario: Scenario, num_items: int) -> Iterator[tuple[int, int]]:
    """Yield where the parts of the scenario begin and end that are run one after the other to bound memory."""
    batch, steps = scenario.items.shape
    step = min(_HORIZON_PIECE, max(_FEWEST_STEPS, _LARGEST_LOGITS // (batch * num_items)))
    yield from pairwise([*range(0, steps, step), steps])


def steps_at_once(num_items: int) -> int:
    """Return how many rows and steps have as many logits as are held in memory at once."""
    return max(_FEWEST_ROWS, _LARGEST_LOGITS // num_items)


def _fits(batch: int, steps: int, num_items: int) -> bool:
    return batch * steps <= steps_at_once(num_items)


def _junk_past_lengths(scenario: Scenario, junk: Sequence[int]) -> Scenario:
    """Return the scenario with ids that no model has from every row's length on, where no form may look at them."""
    behind = np.arange(scenario.items.shape[1]) >= scenario.lengths[:, None]
    return replace(scenario, items=np.where(behind, np.resize(junk, scenario.items.shape), scenario.items))


def _every_item(num_items: int, states: Sequence[State], source: np.random.Generator) -> Iterator[Scenario]:
    """Draw batches that step every item once, or as many, evenly spread, as can be compared in reasonable time."""
    count = min(num_items, max(_FEWEST_ROWS, _MOST_ITEM_LOGITS // num_items))
    chosen = np.linspace(0, num_items - 1, count).astype(np.int64)
    name = "every item" if count == num_items else f"{count:,} of {num_items:,} items"
    for items in np.array_split(chosen, -(-count // steps_at_once(num_items))):
        drawn = make_scenario(name, num_items, states, np.ones(len(items), np.int64), source)
        yield replace(drawn, items=items[:, None])


def make_scenario(
    name: str,
    num_items: int,
    states: Sequence[State],
    lengths: Array,
    source: np.random.Generator,
    scale: float = 1.0,
) -> Scenario:
    """Draw items for rows of the given lengths, and states uniform in (-scale, scale)."""
    batch = len(lengths)
    items = source.integers(0, num_items, (batch, max(lengths)))
    state = [(scale * source.uniform(-1, 1, (batch, *s.shape))).astype(np.float32) for s in states]
    return Scenario(name, items, lengths, state)


def at_once(run: Runner, scenario: Scenario) -> Result:
    """Run the scenario in one call."""
    return run(scenario.items, scenario.lengths, scenario.state)


def draw_cuts(steps: int, source: np.random.Generator) -> list[int]:
    """Draw where to cut so many steps: from once to half of all places, some twice, which makes a chunk of no steps."""
    inner = source.integers(0, steps + 1, source.integers(1, max(2, steps // 2)))
    return [0, *sorted(inner.tolist()), steps]


def in_chunks(cuts: Sequence[int], run: Runner, scenario: Scenario) -> Result:
    """Run the scenario cut there, handing the state on; chunks of no steps only where the form takes them."""
    if getattr(run, "needs_a_step", False):
        cuts = sorted(set(cuts))
    state, parts = scenario.state, []
    for start, end in pairwise(cuts):
        series, state = at_once(run, scenario.piece(start, end, state))
        parts.append(series)
    return _joined(parts, 1), state


def row_by_row(run: Runner, scenario: Scenario) -> Result:
    """Run every row as a batch of its own."""
    return in_batches(1, run, scenario)


def in_batches(size: int, run: Runner, scenario: Scenario) -> Result:
    """Run the scenario in batches of at most so many rows."""
    starts = range(0, len(scenario.items), size)
    series, states = zip(*(at_once(run, scenario.rows(slice(row, row + size))) for row in starts), strict=True)
    return _joined(series), _joined(states)


def turned(run: Runner, scenario: Scenario) -> Result:
    """Run the scenario with every row in another position of the batch."""
    order = np.roll(np.arange(len(scenario.items)), 1)
    series, states = at_once(run, scenario.rows(order))
    back = np.argsort(order)
    return [tensor[back] for tensor in series], [tensor[back] for tensor in states]


def one_by_one(run: Runner, scenario: Scenario) -> tuple[Result, list[Array]]:
    """Run the scenario one step a call; return the result, and each state (S + 1, B, ...) before and after steps."""
    states, parts = [scenario.state], []
    for step in range(scenario.items.shape[1]):
        series, state = at_once(run, scenario.piece(step, step + 1, states[-1]))
        states.append(state)
        parts.append(series)
    return (_joined(parts, 1), states[-1]), [np.stack(tensors) for tensors in zip(*states, strict=True)]


def _joined(parts: Sequence[list[Array]], axis: int = 0) -> list[Array]:
    """Return each of several tensors with the parts of it one after the other."""
    return [np.concatenate(tensors, axis) for tensors in zip(*parts, strict=True)]
