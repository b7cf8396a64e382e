"""Proof that every exported form computes what the model computes: compared with float64 eager PyTorch.

The reference is the model's own `forward` in float64. What is compared: batches and lengths other than the
example's, zero and random states, ragged lengths, one call against random chunks, a row alone against the row in a
batch, and a long horizon. Differences are absolute below 1 and relative above: |a - b| / max(1, |b|).

Where a model chooses (an argmax over nearly equal gates), float32 cannot tell which choice float64 makes. Such rows
are found without knowing the cell: the model itself in float32, and copies of the reference whose weights differ in
the last digit that float32 has, are run too, and a row on which one of those twins parts from the reference by more
than the tolerance (or 1e-5, if that is larger) is *undecided*: counted, not compared. More than a tenth of undecided
rows over all scenarios is a failure of its own.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from arraylstm import NextItemModel
from arraylstm_export.runners import Array, Result, Runner, Whole
from arraylstm_export.signature import State, states_of

BATCHES = (1, 2, 3, 7, 64)
LENGTHS = (1, 2, 17, 100)
HORIZON = 1000
_LARGEST_LOGITS = 20_000_000
_UNDECIDED_ABOVE = 1e-5
_MOST_UNDECIDED = 0.1
_TWINS = 2


@dataclass(frozen=True)
class Scenario:
    """A batch to run: items (B, S) and lengths (B) int64, one float32 array (B, *shape) per state."""

    name: str
    items: Array
    lengths: Array
    state: list[Array]


@dataclass(frozen=True)
class Check:
    """One tensor of one form in one scenario, against the reference."""

    form: str
    scenario: str
    batch: int
    steps: int
    tensor: str
    difference: float
    """Largest |a - b| / max(1, |b|) over the decided rows."""
    where: tuple[int, ...]
    """Index of the largest difference."""
    tolerance: float
    undecided_rows: int

    @property
    def passed(self) -> bool:
        """Tell whether the difference is within tolerance."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All checks of an export."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every check passed, on enough rows."""
        return all(check.passed for check in self.checks) and self.undecided <= _MOST_UNDECIDED

    @property
    def undecided(self) -> float:
        """The share of compared rows that float32 cannot be held to."""
        return sum(check.undecided_rows for check in self.checks) / sum(check.batch for check in self.checks)

    @property
    def reached(self) -> float:
        """The largest difference of any check."""
        return max(check.difference for check in self.checks)

    def worst_by_form(self) -> list[Check]:
        """Return each form's worst check, in the order the forms were checked."""
        worst: dict[str, Check] = {}
        for check in self.checks:
            if check.form not in worst or _badness(check) > _badness(worst[check.form]):
                worst[check.form] = check
        return list(worst.values())


def verify(
    model: NextItemModel,
    forms: dict[str, Runner],
    tolerance: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> Report:
    """Compare every form with the model in float64 in every scenario.

    Args:
        model: the float32 model in eval mode.
        forms: runners by name.
        tolerance: largest difference that passes.
        on_progress: called with the scenarios done and their total.
        seed: seed of items, states, lengths and chunks.
    """
    source = np.random.default_rng(seed)
    states = states_of(model)
    judge = _Judge(model, tolerance)
    scenarios = list(_scenarios(model.num_items, states, source))
    checks: list[Check] = []
    for done, scenario in enumerate(scenarios, 1):
        expected = judge.expect(scenario)
        for form, run in forms.items():
            checks += expected.compare(form, scenario.name, _at_once(run, scenario))
            if scenario.name == "ragged":
                checks += expected.compare(form, "ragged, in chunks", _in_chunks(run, scenario, source))
                checks += expected.compare(form, "ragged, row by row", _row_by_row(run, scenario))
        on_progress(done, len(scenarios))
    return Report(tuple(checks))


# -- scenarios --------------------------------------------------------------------------------------------------


def _scenarios(num_items: int, states: list[State], source: np.random.Generator) -> Iterator[Scenario]:
    for batch in BATCHES:
        for steps in LENGTHS:
            if batch * steps * num_items <= _LARGEST_LOGITS or batch * steps <= max(BATCHES):
                full = np.full(batch, steps)
                yield make_scenario("zero state", num_items, states, full, source, random_state=False)
                yield make_scenario("random state", num_items, states, full, source)
    yield make_scenario("ragged", num_items, states, np.array([17, 0, 1, 17, 5, 16, 9]), source)
    yield make_scenario("horizon", num_items, states, np.array([HORIZON]), source, random_state=False)


def make_scenario(
    name: str,
    num_items: int,
    states: list[State],
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


def _at_once(run: Runner, scenario: Scenario) -> Result:
    return run(scenario.items, scenario.lengths, scenario.state)


def _in_chunks(run: Runner, scenario: Scenario, source: np.random.Generator) -> Result:
    """Run the scenario in pieces cut at random, handing the state on."""
    steps = scenario.items.shape[1]
    cuts = [0, *sorted(source.choice(np.arange(1, steps), 3, replace=False)), steps]
    state, pieces = scenario.state, []
    for start, end in pairwise(cuts):
        logits, state = run(scenario.items[:, start:end], np.clip(scenario.lengths - start, 0, end - start), state)
        pieces.append(logits)
    return np.concatenate(pieces, 1), state


def _row_by_row(run: Runner, scenario: Scenario) -> Result:
    """Run every row as a batch of its own."""
    rows = [slice(row, row + 1) for row in range(len(scenario.items))]
    results = [
        run(scenario.items[row], scenario.lengths[row], [tensor[row] for tensor in scenario.state]) for row in rows
    ]
    return np.concatenate([logits for logits, _ in results]), [
        np.concatenate(tensors) for tensors in zip(*(state for _, state in results), strict=True)
    ]


# -- judging ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Expectation:
    """What the reference gives for a scenario, and which rows float32 can be held to."""

    scenario: Scenario
    tensors: dict[str, Array]
    decided: Array
    tolerance: float

    def compare(self, form: str, scenario: str, result: Result) -> Iterator[Check]:
        logits, state = result
        batch, steps = self.scenario.items.shape
        undecided = int((~self.decided).sum())
        for (name, expected), actual in zip(self.tensors.items(), [logits, *state], strict=True):
            difference, where = _largest(_difference(actual, expected), self.decided)
            yield Check(form, scenario, batch, steps, name, difference, where, self.tolerance, undecided)


class _Judge:
    """The float64 reference and its twins."""

    def __init__(self, model: NextItemModel, tolerance: float) -> None:
        self.names = ["logits", *(state.output.name for state in states_of(model))]
        self.reference = float64_reference(model)
        self.twins = [Whole(model), *(_twin(self.reference.module, seed) for seed in range(_TWINS))]
        self.tolerance = tolerance

    def expect(self, scenario: Scenario) -> _Expectation:
        logits, state = _at_once(self.reference, scenario)
        decided = np.ones(len(scenario.items), bool)
        for twin in self.twins:
            other_logits, other_state = _at_once(twin, scenario)
            for ours, other in zip([logits, *state], [other_logits, *other_state], strict=True):
                rows = _difference(other, ours).reshape(len(decided), -1)
                decided &= rows.max(1, initial=0.0) <= max(self.tolerance, _UNDECIDED_ABOVE)
        return _Expectation(scenario, dict(zip(self.names, [logits, *state], strict=True)), decided, self.tolerance)


def float64_reference(model: NextItemModel) -> Whole:
    """Return the runner that every form is measured against: the model's own `forward` in float64."""
    return Whole(copy.deepcopy(model).double(), torch.float64)


def _twin(module: torch.nn.Module, seed: int) -> Whole:
    """Copy a float64 module with every weight moved by a random amount in the last digit that float32 has."""
    twin = copy.deepcopy(module)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in twin.parameters():
            noise = torch.rand(weight.shape, generator=source, dtype=weight.dtype) * 2 - 1
            weight.mul_(1 + torch.finfo(torch.float32).eps * noise)
    return Whole(twin, torch.float64)


def _difference(actual: Array, expected: Array) -> Array:
    difference = np.abs(actual.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return np.nan_to_num(difference, nan=np.inf)


def _largest(difference: Array, decided: Array) -> tuple[float, tuple[int, ...]]:
    judged = np.where(decided.reshape(-1, *[1] * (difference.ndim - 1)), difference, 0.0)
    if judged.size == 0:
        return 0.0, ()
    where = np.unravel_index(int(judged.argmax()), judged.shape)
    return float(judged[where]), tuple(int(index) for index in where)


def _badness(check: Check) -> tuple[bool, float]:
    return not check.passed, check.difference
