"""The batches that every form of the model is tried on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from arraylstm_export.arrays import Array
from arraylstm_export.errors import ExportError
from arraylstm_export.interface import State

_HORIZON_ROWS = 2  # torch rounds a single row differently in one step and in many
_HORIZON_PIECE = 500
_LARGE = 4.0  # a wrong weight may have no visible effect on small states
_FEWEST_ROWS, _FEWEST_STEPS = 64, 17  # run at once, however many logits that makes
_LARGEST_LOGITS = 10_000_000
_MOST_ITEM_LOGITS = 500_000_000
_MOST_HORIZON_LOGITS = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The sizes that forms are tried at."""

    batches: tuple[int, ...] = (1, 2, 3, 7, 64)
    """Rows, in batches whose rows all have the same length."""
    lengths: tuple[int, ...] = (1, 2, 17, 100)
    """Steps of those batches."""
    ragged: tuple[tuple[int, ...], ...] = ((17, 0, 1, 17, 5, 16, 9), (100, 37, 0, 64))
    """The lengths of the rows, in batches whose rows differ in length."""
    chunkings: int = 3
    """Random ways to cut each of the ragged batches into calls."""
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
        """Return the scenario with some of its rows only."""
        return Scenario(self.name, self.items[wanted], self.lengths[wanted], [tensor[wanted] for tensor in self.state])

    def piece(self, start: int, end: int, state: list[Array]) -> "Scenario":
        """Return the scenario's steps from start to end, beginning in the given state."""
        return Scenario(self.name, self.items[:, start:end], np.clip(self.lengths - start, 0, end - start), state)


def all_scenarios(
    num_items: int, states: Sequence[State], rng: np.random.Generator, coverage: Coverage = Coverage()
) -> Iterator[Scenario]:
    """Draw every scenario. A batch whose logits would fill the memory is left out, and a horizon is shortened."""
    for batch in coverage.batches:
        for steps in coverage.lengths:
            if _fits(batch, steps, num_items):
                full = np.full(batch, steps)
                yield make_scenario("initial state", num_items, states, full, rng, scale=None)
                yield make_scenario("random state", num_items, states, full, rng)
    rows, steps = max(coverage.batches), max(coverage.ragged[0])
    large = np.full(rows, max(1, min(steps, steps_at_once(num_items) // rows)))
    yield make_scenario("large state", num_items, states, large, rng, scale=_LARGE)
    yield from _every_item(num_items, states, rng)
    for lengths in coverage.ragged:
        if lengths == coverage.ragged[0] or _fits(len(lengths), max(lengths), num_items):
            ragged = make_scenario("ragged", num_items, states, np.array(lengths), rng)
            yield _junk_beyond_lengths(ragged, [np.iinfo(np.int64).max, -1, num_items])
    longest = max(max(coverage.lengths), _MOST_HORIZON_LOGITS // (_HORIZON_ROWS * num_items))
    long = np.full(_HORIZON_ROWS, min(coverage.horizon, longest))
    yield make_scenario("horizon", num_items, states, long, rng, scale=None)


def make_scenario(
    name: str,
    num_items: int,
    states: Sequence[State],
    lengths: Array,
    rng: np.random.Generator,
    scale: float | None = 1.0,
) -> Scenario:
    """Draw items for rows of the given lengths, and states uniform in (-scale, scale), or None for the initial ones."""
    batch = len(lengths)
    items = rng.integers(0, num_items, (batch, max(lengths)))
    drawn = [rng.uniform(-1, 1, (batch, *s.shape)) for s in states]  # always, so that items do not depend on it
    state = [s.start(batch) if scale is None else (scale * d).astype(np.float32) for s, d in zip(states, drawn)]
    return Scenario(name, items, lengths, state)


def pieces(scenario: Scenario, num_items: int) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each part of the scenario; the parts are run one after another to bound memory."""
    batch, steps = scenario.items.shape
    step = min(_HORIZON_PIECE, max(_FEWEST_STEPS, _LARGEST_LOGITS // (batch * num_items)))
    yield from pairwise([*range(0, steps, step), steps])


def steps_at_once(num_items: int) -> int:
    """Return how many steps, over all rows of a batch, have as many logits as are held in memory at once."""
    return max(_FEWEST_ROWS, _LARGEST_LOGITS // num_items)


def _fits(batch: int, steps: int, num_items: int) -> bool:
    return batch * steps <= steps_at_once(num_items)


def _junk_beyond_lengths(scenario: Scenario, junk: Sequence[int]) -> Scenario:
    """Return the scenario with item ids that no model has from every row's length on, where no form may read them."""
    beyond = np.arange(scenario.items.shape[1]) >= scenario.lengths[:, None]
    return replace(scenario, items=np.where(beyond, np.resize(junk, scenario.items.shape), scenario.items))


def _every_item(num_items: int, states: Sequence[State], rng: np.random.Generator) -> Iterator[Scenario]:
    """Draw batches with a step for every item, or for an even sample where all would take too long to compare."""
    count = min(num_items, max(_FEWEST_ROWS, _MOST_ITEM_LOGITS // num_items))
    chosen = np.linspace(0, num_items - 1, count).astype(np.int64)
    name = "every item" if count == num_items else f"{count:,} of {num_items:,} items"
    for items in np.array_split(chosen, -(-count // steps_at_once(num_items))):
        drawn = make_scenario(name, num_items, states, np.ones(len(items), np.int64), rng)
        yield replace(drawn, items=items[:, None])
