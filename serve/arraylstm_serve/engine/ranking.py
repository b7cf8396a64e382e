"""From logits to what a client reads: the most likely items, and how likely an item was.

Every row is worked out by itself, so that its numbers do not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from arraylstm_serve.arrays import Doubles, Floats, Integers


class Ask(NamedTuple):
    """Which predictions a request wants.

    Attributes:
        top_k: how many at most.
        reach: how many of the most likely items to look at so that the excluded ones can be dropped.
        exclude: ids to leave out.
    """

    top_k: int
    reach: int
    exclude: frozenset[int] = frozenset()

    @classmethod
    def of(cls, top_k: int, num_items: int, exclude: frozenset[int] = frozenset()) -> Self:
        """The ask for top_k of num_items items, without some."""
        return cls(top_k, min(num_items, top_k + len(exclude)) if top_k else 0, exclude)

    def choose(self, ranking: Ranking) -> Ranking:
        """The predictions wanted, most likely first."""
        if not self.exclude:
            return ranking
        pairs = [pair for pair in zip(*ranking, strict=True) if pair[0] not in self.exclude][: self.top_k]
        return Ranking([index for index, _ in pairs], [chance for _, chance in pairs])


class Ranking(NamedTuple):
    """The most likely items of one row, most likely first."""

    ids: list[int]
    probabilities: list[float]


GROUP = 16
"""Logits of which the largest stands for the others where the top ones are looked for."""

NOTHING = Ranking([], [])


def log_sum_exp(logits: Floats) -> Doubles:
    """The log-sum-exp (B,) float64 of each row of logits (B, V); not finite where a logit is NaN or +inf."""
    with np.errstate(invalid="ignore", over="ignore"):
        tops = logits.max(axis=1, keepdims=True)
        sums = np.exp(logits - tops).sum(axis=1, dtype=np.float64)
        log_sums: Doubles = np.log(sums) + tops[:, 0]
    return log_sums


def chance(values: Floats | Doubles, log_sums: Doubles) -> Doubles:
    """The probabilities that logits have in rows of some log-sum-exp."""
    chances: Doubles = np.minimum(np.exp(values - log_sums), 1.0)
    return chances


def rank(logits: Floats, log_sums: Doubles, reach: int) -> list[Ranking]:
    """The `reach` most likely items of each row of logits (B, V) whose log-sum-exp is log_sums (B,)."""
    if reach == 0:
        return [NOTHING] * len(logits)
    ids = top_ids(logits, reach)
    chances = chance(logits[np.arange(len(logits))[:, None], ids], log_sums[:, None])
    return [Ranking(*row) for row in zip(ids.tolist(), chances.tolist(), strict=True)]


def rank_each(logits: Floats, log_sums: Doubles, reaches: Sequence[int]) -> list[Ranking]:
    """The reaches[n] most likely items of each row n; rows of equal reach are ranked together."""
    groups: dict[int, list[int]] = {}
    for row, reach in enumerate(reaches):
        groups.setdefault(reach, []).append(row)
    if len(groups) == 1:
        return rank(logits, log_sums, reaches[0])
    rankings = [NOTHING] * len(reaches)
    for reach, rows in groups.items():
        for row, ranking in zip(rows, rank(logits[rows], log_sums[rows], reach), strict=True):
            rankings[row] = ranking
    return rankings


def top_ids(logits: Floats, k: int) -> Integers:
    """The ids (B, k) of the k largest logits of each row (B, V), largest first, ties by id; 1 <= k <= V."""
    rows, width = logits.shape
    owners, ids = np.divmod(np.flatnonzero(logits >= _lower_bounds(logits, k)[:, None]), width)
    order = np.lexsort((-logits[owners, ids], owners))
    starts = np.searchsorted(owners, np.arange(rows))
    best: Integers = ids[order][starts[:, None] + np.arange(k)]
    return best


def _lower_bounds(logits: Floats, k: int) -> Floats:
    """For each row of logits (B, V) a value (B,) that at least k of its logits reach, and not many more."""
    rows, width = logits.shape
    groups = width // GROUP
    if groups > 2 * k:  # the k largest of the groups' maxima are k logits: sorting those is a fraction of the work
        logits = logits[:, : groups * GROUP].reshape(rows, GROUP, groups).max(axis=1)
    place = logits.shape[1] - k
    bounds: Floats = np.partition(logits, place, axis=1)[:, place]
    return bounds


def observe(logits: Floats, log_sums: Doubles, items: Integers) -> tuple[Doubles, Integers]:
    """Probabilities (B,) and ranks (B,) that rows of logits (B, V) give to items (B,); rank 1 is the top."""
    values = logits[np.arange(len(items)), items]
    ranks: Integers = 1 + (logits > values[:, None]).sum(axis=1)
    return chance(values, log_sums), ranks
