"""How far apart two arrays are, |a - b| / max(1, |b|), which is absolute below 1 and relative above, and where most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arraylstm_export.arrays import Array, Result

_AT_ONCE = 1 << 15  # elements that stay in the cache


@dataclass(frozen=True)
class Largest:
    """The largest difference of a tensor per row, with values (B), or per step of a row, with values (B, S)."""

    values: Array
    places: Array
    """The flat index, within the row or step, of the element that differs most."""
    shape: tuple[int, ...]
    """The shape of a row or step."""

    @property
    def by_step(self) -> bool:
        """Tell whether there is a value for every step of every row."""
        return self.values.ndim == 2

    def flat(self) -> "Largest":
        """Return the same with values (N), where a batch of single steps has (N, 1) or (N)."""
        return Largest(self.values.reshape(-1), self.places.reshape(-1), self.shape)

    def replace(self, rows: Array, other: "Largest", others_rows: Array) -> None:
        """Take the values and places of some rows from another one."""
        self.values[rows] = other.values[others_rows]
        self.places[rows] = other.places[others_rows]

    def overall(self, excused: Array | bool = False, start: int = 0) -> tuple[float, tuple[int, ...]]:
        """Return the largest difference that is not excused, and its full index; 0 and () of an empty tensor.

        Args:
            excused: which of the values do not count.
            start: added to the index of the step.
        """
        judged = np.where(excused, 0.0, self.values)
        if judged.size == 0 or 0 in self.shape:
            return 0.0, ()
        lead = np.unravel_index(int(judged.argmax()), judged.shape)
        inner = np.unravel_index(int(self.places[lead]), self.shape)
        row, *step = (int(index) for index in lead)
        return float(judged[lead]), (row, *(index + start for index in step), *map(int, inner))


def largest(actual: Array, expected: Array, axes: int) -> Largest:
    """Return the largest difference for every index of the leading axes; infinite where `actual` has a NaN."""
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
        places[part] = apart.argmax(1)  # the first NaN, if there is one
        values[part] = np.take_along_axis(apart, places[part, None], 1)[:, 0]
    values[np.isnan(values)] = np.inf
    return Largest(values.reshape(lead), places.reshape(lead), shape)


def worst(found: Sequence[Largest]) -> Array:
    """Return every row's largest difference over several tensors."""
    by_row: Array = np.stack([one.values.reshape(len(one.values), -1).max(1, initial=0.0) for one in found]).max(0)
    return by_row


def differences(actual: Result, expected: Result) -> list[Largest]:
    """Return the largest differences of the series per row and step, and of the states per row."""
    (series, states), (expected_series, expected_states) = actual, expected
    return [
        *(largest(ours, theirs, 2) for ours, theirs in zip(series, expected_series, strict=True)),
        *(largest(ours, theirs, 1) for ours, theirs in zip(states, expected_states, strict=True)),
    ]


def first_over(found: Sequence[Largest], lengths: Array, limit: float) -> Array:
    """Return every row's first step with a difference over the limit, or S; states count as part of the last step."""
    over = np.any([one.values > limit for one in found if one.by_step], 0)
    states = np.any([one.values > limit for one in found if not one.by_step], 0)
    over[np.arange(len(over)), np.maximum(lengths - 1, 0)] |= states
    first: Array = np.where(over.any(1), over.argmax(1), over.shape[1])
    return first


def rows_of(result: Result, rows: Array) -> Result:
    """Return a result with some of its rows only."""
    series, states = result
    return [tensor[rows] for tensor in series], [tensor[rows] for tensor in states]
