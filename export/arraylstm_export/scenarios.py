"""What a form of the model is tried on, and the ways of running it through."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from arraylstm_export.runners import Array, Result, Runner
from arraylstm_export.signature import State

BATCHES = (1, 2, 3, 7, 64)
LENGTHS = (1, 2, 17, 100)
RAGGED = (17, 0, 1, 17, 5, 16, 9)
HORIZON = 1000
_LARGEST_LOGITS = 20_000_000
_MOST_ITEM_BATCHES = 25


@dataclass(frozen=True)
class Scenario:
    """A batch to run: items (B, S) and lengths (B) int64, one float32 array (B, *shape) per state."""

    name: str
    items: Array
    lengths: Array
    state: list[Array]

    def rows(self, wanted: Array) -> "Scenario":
        """Return the scenario of some of its rows."""
        return Scenario(self.name, self.items[wanted], self.lengths[wanted], [tensor[wanted] for tensor in self.state])

    def until(self, steps: int) -> "Scenario":
        """Return the scenario cut after so many steps."""
        return Scenario(self.name, self.items[:, :steps], np.minimum(self.lengths, steps), self.state)


def all_scenarios(num_items: int, states: Sequence[State], source: np.random.Generator) -> Iterator[Scenario]:
    """Draw every scenario; batches whose logits would fill memory are left out."""
    for batch in BATCHES:
        for steps in LENGTHS:
            if batch * steps * num_items <= _LARGEST_LOGITS or batch * steps <= max(BATCHES):
                full = np.full(batch, steps)
                yield make_scenario("zero state", num_items, states, full, source, random_state=False)
                yield make_scenario("random state", num_items, states, full, source)
    yield from _every_item(num_items, states, source)
    ragged = make_scenario("ragged", num_items, states, np.array(RAGGED), source)
    yield _junk_past_lengths(ragged, [np.iinfo(np.int64).max, -1, num_items])
    horizon = min(HORIZON, max(max(LENGTHS), _LARGEST_LOGITS // num_items))
    yield make_scenario("horizon", num_items, states, np.array([horizon]), source, random_state=False)


def _junk_past_lengths(scenario: Scenario, junk: Sequence[int]) -> Scenario:
    """Return the scenario with ids that no model has from every row's length on, where no form may look at them."""
    behind = np.arange(scenario.items.shape[1]) >= scenario.lengths[:, None]
    return replace(scenario, items=np.where(behind, np.resize(junk, scenario.items.shape), scenario.items))


def _every_item(num_items: int, states: Sequence[State], source: np.random.Generator) -> Iterator[Scenario]:
    """Draw batches that step every item once, or as many, evenly spread, as can be compared in reasonable time."""
    rows = max(1, _LARGEST_LOGITS // num_items)
    count = min(num_items, rows * _MOST_ITEM_BATCHES)
    chosen = np.linspace(0, num_items - 1, count).astype(np.int64)
    name = "every item" if count == num_items else f"{count:,} of {num_items:,} items"
    for items in np.array_split(chosen, -(-count // rows)):
        drawn = make_scenario(name, num_items, states, np.ones(len(items), np.int64), source)
        yield Scenario(name, items[:, None], drawn.lengths, drawn.state)


def make_scenario(
    name: str,
    num_items: int,
    states: Sequence[State],
    lengths: Array,
    source: np.random.Generator,
    random_state: bool = True,
) -> Scenario:
    """Draw items for rows of the given lengths, and states uniform in (-1, 1) or zero."""
    batch = len(lengths)
    items = source.integers(0, num_items, (batch, max(lengths)))
    scale = 1.0 if random_state else 0.0
    state = [(scale * source.uniform(-1, 1, (batch, *s.shape))).astype(np.float32) for s in states]
    return Scenario(name, items, lengths, state)


def at_once(run: Runner, scenario: Scenario) -> Result:
    """Run the scenario in one call."""
    return run(scenario.items, scenario.lengths, scenario.state)


def in_chunks(run: Runner, scenario: Scenario, source: np.random.Generator) -> Result:
    """Run the scenario in pieces cut at random, handing the state on."""
    steps = scenario.items.shape[1]
    cuts = [0, *sorted(source.choice(np.arange(1, steps), 3, replace=False)), steps]
    state, pieces = scenario.state, []
    for start, end in pairwise(cuts):
        series, state = run(scenario.items[:, start:end], np.clip(scenario.lengths - start, 0, end - start), state)
        pieces.append(series)
    return [np.concatenate(parts, 1) for parts in zip(*pieces, strict=True)], state


def row_by_row(run: Runner, scenario: Scenario) -> Result:
    """Run every row as a batch of its own."""
    rows = [slice(row, row + 1) for row in range(len(scenario.items))]
    results = [
        run(scenario.items[row], scenario.lengths[row], [tensor[row] for tensor in scenario.state]) for row in rows
    ]
    series, states = zip(*results, strict=True)
    return _stacked(series), _stacked(states)


def _stacked(rows: Sequence[list[Array]]) -> list[Array]:
    """Return each of several tensors with the rows' parts of it one after the other."""
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
