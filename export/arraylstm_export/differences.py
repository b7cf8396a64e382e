"""How far two arrays are apart: |a - b| / max(1, |b|), absolute below 1 and relative above, and where most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arraylstm_export.runners import Array, Result

_AT_ONCE = 1 << 15  # as much as stays in the cache


@dataclass(frozen=True)
class Largest:
    """The largest difference behind every leading index, a row (B) or a row's step (B, S), of a tensor."""

    values: Array
    places: Array
    """Where it is among the elements behind its leading index, counted flat."""
    shape: tuple[int, ...]
    """Of one leading index."""

    @property
    def by_step(self) -> bool:
        """Tell whether there is one for every step of every row."""
        return self.values.ndim == 2

    def flat(self) -> "Largest":
        """Return the same of tensors (N, 1) and (N), a batch of single steps, as (N)."""
        return Largest(self.values.reshape(-1), self.places.reshape(-1), self.shape)

    def replace(self, rows: Array, other: "Largest", others_rows: Array) -> None:
        """Take the values and places of some rows from another one."""
        self.values[rows] = other.values[others_rows]
        self.places[rows] = other.places[others_rows]

    def but_for(self, excused: Array | bool = False, start: int = 0) -> tuple[float, tuple[int, ...]]:
        """Return the largest difference of all and its whole index, steps counted from `start`; 0 and () of nothing."""
        judged = np.where(excused, 0.0, self.values)
        if judged.size == 0 or 0 in self.shape:
            return 0.0, ()
        lead = np.unravel_index(int(judged.argmax()), judged.shape)
        inner = np.unravel_index(int(self.places[lead]), self.shape)
        row, *step = (int(index) for index in lead)
        return float(judged[lead]), (row, *(index + start for index in step), *map(int, inner))


def largest(actual: Array, expected: Array, axes: int) -> Largest:
    """Return the largest difference behind every index of so many leading axes; infinite where `actual` has a NaN."""
    lead, shape = expected.shape[:axes], expected.shape[axes:]
    width = int(np.prod(shape))
    ours, theirs = actual.reshape(-1, width), expected.reshape(-1, width)
    values, places = np.zeros(len(theirs)), np.zeros(len(theirs), np.int64)
    block = max(1, _AT_ONCE // width)
    for start in range(0, len(theirs), block):
        part = slice(start, start + block)
        apart = np.subtract(ours[part], theirs[part], dtype=np.float64)
        np.abs(apart, out=apart)
        apart /= np.maximum(1.0, np.abs(theirs[part]))
        places[part] = apart.argmax(1)  # of the first NaN, if there is one
        values[part] = np.take_along_axis(apart, places[part, None], 1)[:, 0]
    values[np.isnan(values)] = np.inf
    return Largest(values.reshape(lead), places.reshape(lead), shape)


def worst(found: Sequence[Largest]) -> Array:
    """Return every row's largest difference over several tensors."""
    by_row: Array = np.stack([one.values.reshape(len(one.values), -1).max(1, initial=0.0) for one in found]).max(0)
    return by_row


def differences(actual: Result, expected: Result) -> list[Largest]:
    """Return the largest differences behind every step of the series, and behind every row of the states."""
    (series, states), (expected_series, expected_states) = actual, expected
    return [
        *(largest(ours, theirs, 2) for ours, theirs in zip(series, expected_series, strict=True)),
        *(largest(ours, theirs, 1) for ours, theirs in zip(states, expected_states, strict=True)),
    ]


def first_over(found: Sequence[Largest], lengths: Array, limit: float) -> Array:
    """Return every row's first step with a difference over the limit, else S; its states' count as its last step's."""
    over = np.any([one.values > limit for one in found if one.by_step], 0)
    states = np.any([one.values > limit for one in found if not one.by_step], 0)
    over[np.arange(len(over)), np.maximum(lengths - 1, 0)] |= states
    first: Array = np.where(over.any(1), over.argmax(1), over.shape[1])
    return first


def rows_of(result: Result, rows: Array) -> Result:
    """Return a result's part of some rows."""
    series, states = result
    return [tensor[rows] for tensor in series], [tensor[rows] for tensor in states]
