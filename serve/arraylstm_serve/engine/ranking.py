"""Turn logits into what a client reads: the most likely items, and the probability and rank of an item.

Each row is computed on its own, so its numbers do not depend on the other rows of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np

from arraylstm_serve.arrays import Doubles, Floats, Integers


class Selection(NamedTuple):
    """Which predictions a request wants.

    Attributes:
        top_k: how many to return at most.
        depth: how many of the most likely items to rank, so that top_k are left without the excluded ones.
        exclude: ids to leave out, the unknown item's among them.
    """

    top_k: int
    depth: int
    exclude: frozenset[int] = frozenset()

    @classmethod
    def of(cls, top_k: int, num_items: int, exclude: frozenset[int] = frozenset()) -> Self:
        """Make the selection of the top_k of num_items items, without the excluded ones."""
        return cls(top_k, min(num_items, top_k + len(exclude)) if top_k else 0, exclude)

    def choose(self, ranking: Ranking, most: int | None = None) -> Ranking:
        """Return the predictions wanted out of a ranking, most likely first.

        Args:
            ranking: of `depth` items, or a part of it.
            most: how many to return at most; `top_k` if it is None.
        """
        if not self.exclude:
            return ranking
        most = self.top_k if most is None else most
        pairs = [pair for pair in zip(*ranking, strict=True) if pair[0] not in self.exclude][:most]
        return Ranking([index for index, _ in pairs], [probability for _, probability in pairs])


class Ranking(NamedTuple):
    """The most likely items of one row, most likely first."""

    ids: list[int]
    probabilities: list[float]


GROUP = 16
"""The search for the largest logits first takes the maximum of each group of so many logits."""

FEW = 2
"""Up to so many rows are ranked one after the other, which takes fewer calls than ranking them together."""

NOTHING = Ranking([], [])


def log_sum_exp(logits: Floats) -> Doubles:
    """Return the log-sum-exp (B,) float64 of each row of logits (B, V); not finite if a logit is NaN or +inf."""
    with np.errstate(invalid="ignore", over="ignore"):
        tops = logits.max(axis=1, keepdims=True)
        sums = np.exp(logits - tops).sum(axis=1, dtype=np.float64)
        log_sums: Doubles = np.log(sums) + tops[:, 0]
    return log_sums


def probability(values: Floats | Doubles, log_sums: Doubles | np.float64) -> Doubles:
    """Return the probabilities of logits, given the log-sum-exp of their rows."""
    probabilities: Doubles = np.minimum(np.exp(values - log_sums), 1.0)
    return probabilities


def rank(logits: Floats, log_sums: Doubles, depth: int) -> list[Ranking]:
    """Return the `depth` most likely items of each row of logits (B, V); log_sums (B,) are the rows' log-sum-exp."""
    if depth == 0:
        return [NOTHING] * len(logits)
    if len(logits) <= FEW:
        return [_rank_row(row, log_sum, depth) for row, log_sum in zip(logits, log_sums, strict=True)]
    ids = top_ids(logits, depth)
    probabilities = probability(logits[np.arange(len(logits))[:, None], ids], log_sums[:, None])
    return [Ranking(*row) for row in zip(ids.tolist(), probabilities.tolist(), strict=True)]


def _rank_row(row: Floats, log_sum: np.float64, depth: int) -> Ranking:
    """Return the `depth` most likely items of one row of logits (V,)."""
    ids = (row >= _lower_bounds(row[None], depth)).nonzero()[0]
    values = row[ids]
    order = (-values).argsort(kind="stable")[:depth]
    return Ranking(ids[order].tolist(), probability(values[order], log_sum).tolist())


def rank_each(logits: Floats, log_sums: Doubles, depths: Sequence[int]) -> list[Ranking]:
    """Return the depths[n] most likely items of each row n; rows of equal depth are ranked together."""
    groups: dict[int, list[int]] = {}
    for row, depth in enumerate(depths):
        groups.setdefault(depth, []).append(row)
    if len(groups) == 1:
        return rank(logits, log_sums, depths[0])
    rankings = [NOTHING] * len(depths)
    for depth, rows in groups.items():
        for row, ranking in zip(rows, rank(logits[rows], log_sums[rows], depth), strict=True):
            rankings[row] = ranking
    return rankings


def rank_in_pieces(logits: Floats, log_sums: Doubles, depth: int, piece: int) -> Iterator[Ranking]:
    """Yield what `rank` returns for one row, in pieces of about `piece` items.

    Args:
        logits: (1, V).
        log_sums: (1,) the log-sum-exp of the row.
        depth: how many items to rank, at most V.
        piece: about how many to rank at a time; more if many have the same logit.
    """
    row = logits[0]
    places = np.arange(len(row) - piece, len(row) - depth, -piece)
    bounds = np.partition(row, places)[places] if len(places) else row[:0]
    above = np.inf
    for bound in (*bounds.tolist(), -np.inf):
        ids = np.flatnonzero((row >= bound) & ((row < above) if above < np.inf else True))
        ids = ids[np.argsort(-row[ids], kind="stable")][:depth]
        above, depth = bound, depth - len(ids)
        if len(ids):
            yield Ranking(ids.tolist(), probability(row[ids], log_sums).tolist())


def top_ids(logits: Floats, k: int) -> Integers:
    """Return the ids (B, k) of the k largest logits of each row (B, V), largest first, ties by id; 1 <= k <= V."""
    rows, width = logits.shape
    owners, ids = np.divmod(np.flatnonzero(logits >= _lower_bounds(logits, k)[:, None]), width)
    order = np.lexsort((-logits[owners, ids], owners))
    starts = np.searchsorted(owners, np.arange(rows))
    best: Integers = ids[order][starts[:, None] + np.arange(k)]
    return best


def _lower_bounds(logits: Floats, k: int) -> Floats:
    """Return a lower bound (B,) of the k largest logits of each row (B, V); few other logits are above it."""
    rows, width = logits.shape
    groups = width // GROUP
    if groups > 2 * k:  # the k largest maxima of groups are k logits too, and there are far fewer maxima to search
        logits = logits[:, : groups * GROUP].reshape(rows, GROUP, groups).max(axis=1)
    place = logits.shape[1] - k
    bounds: Floats = np.partition(logits, place, axis=1)[:, place]
    return bounds


def observe(logits: Floats, log_sums: Doubles, items: Integers, unknown: int | None = None) -> tuple[Doubles, Integers]:
    """Return the probabilities (B,) and ranks (B,) that rows of logits (B, V) give to items (B,).

    Rank 1 is the most likely item. The unknown item, if there is one, takes no place before another item, as it is
    never predicted; its own rank is V, behind all others.
    """
    values = logits[np.arange(len(items)), items]
    ranks: Integers = 1 + (logits > values[:, None]).sum(axis=1)
    if unknown is not None:
        ranks = np.where(items == unknown, logits.shape[1], ranks - (logits[:, unknown] > values))
    return probability(values, log_sums), ranks
