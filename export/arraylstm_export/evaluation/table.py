"""Sparse rows of numbers, and adding them to dense ones."""

import numpy as np

from arraylstm_export.arrays import Array


class Table:
    """Sparse rows: equal pairs of row and column are one entry, with the sum of their values.

    Args:
        rows: (M,) int64.
        columns: (M,) int64.
        values: (M,) float.
        count: how many rows there are.
        width: how many columns there are.
    """

    def __init__(self, rows: Array, columns: Array, values: Array, count: int, width: int) -> None:
        pairs, inverse = np.unique(rows * width + columns, return_inverse=True)
        self.values: Array = np.bincount(inverse, values, minlength=len(pairs)).astype(np.float32)
        owners, self.columns = np.divmod(pairs, width)
        self.starts: Array = np.searchsorted(owners, np.arange(count + 1))

    @property
    def sizes(self) -> Array:
        """How many entries each row has."""
        return np.diff(self.starts)

    def sums(self) -> Array:
        """Return the sum of each row."""
        total = np.concatenate([[0.0], np.cumsum(self.values, dtype=np.float64)])
        result: Array = total[self.starts[1:]] - total[self.starts[:-1]]
        return result

    def entries(self, rows: Array) -> tuple[Array, Array]:
        """Return where the entries of rows (N,) are, and for each of them which of the N it belongs to."""
        sizes = self.sizes[rows]
        owners = np.repeat(np.arange(len(rows)), sizes)
        firsts = np.repeat(self.starts[rows] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        return firsts + np.arange(len(owners)), owners

    def add_to(self, dense: Array, places: Array, rows: Array, weights: Array) -> None:
        """Add rows (N,), times weights (N,), to the rows `places` (N,), all different, of a dense array."""
        where, owners = self.entries(rows)
        dense[places[owners], self.columns[where]] += self.values[where] * weights[owners].astype(np.float32)
