"""The ways to run a scenario: in one call or several, in smaller batches, or with its rows in another order."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.runner import Runner
from arraylstm_export.parity.scenarios import Scenario

Schedule = Callable[[Runner, Scenario], Result]


def at_once(run: Runner, scenario: Scenario) -> Result:
    """Run the scenario in one call."""
    return run(scenario.items, scenario.lengths, scenario.state)


def draw_cuts(steps: int, rng: np.random.Generator) -> list[int]:
    """Draw places to cut so many steps: one to half as many as there are; a place drawn twice makes an empty chunk."""
    inner = rng.integers(0, steps + 1, rng.integers(1, max(2, steps // 2)))
    return [0, *sorted(inner.tolist()), steps]


def in_chunks(cuts: Sequence[int], run: Runner, scenario: Scenario) -> Result:
    """Run the scenario cut at these steps, each chunk from the state that the one before it left.

    Empty chunks are left out for a form that needs a step.
    """
    if run.needs_a_step:
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


def reordered(run: Runner, scenario: Scenario) -> Result:
    """Run the scenario with every row in another position of the batch."""
    order = np.roll(np.arange(len(scenario.items)), 1)
    series, states = at_once(run, scenario.rows(order))
    back = np.argsort(order)
    return [tensor[back] for tensor in series], [tensor[back] for tensor in states]


def step_by_step(run: Runner, scenario: Scenario) -> tuple[Result, list[Array]]:
    """Run the scenario with one step per call.

    Returns:
        The result, and for each state an array (S + 1, B, ...) with the states before and after all steps.
    """
    states, parts = [scenario.state], []
    for step in range(scenario.items.shape[1]):
        series, state = at_once(run, scenario.piece(step, step + 1, states[-1]))
        states.append(state)
        parts.append(series)
    return (_joined(parts, 1), states[-1]), [np.stack(tensors) for tensors in zip(*states, strict=True)]


def _joined(parts: Sequence[list[Array]], axis: int = 0) -> list[Array]:
    """Concatenate the parts of each tensor."""
    return [np.concatenate(tensors, axis) for tensors in zip(*parts, strict=True)]
