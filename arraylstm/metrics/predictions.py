"""What scores predict: the rank of what followed, its surprise, and what was recommended."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arraylstm.ranks import ranks

NOWHERE = 2**62
"""The rank of an item that is never recommended."""


@dataclass(frozen=True)
class Predictions:
    """N predictions, and the items that followed.

    Attributes:
        targets: (N,) int64, the ids of the items that followed; -1 for one without an id.
        positions: (N,) int64, how many items the session had before.
        ranks: (N,) int64, what rank the item that followed had; NOWHERE if it could not be recommended.
        ranks_without: (N,) int64, the same with the session's current item left out of the list.
        nats: (N,) float64, the surprise; NaN where no probability was given.
        best: (N, K) int64, the items recommended, best first; -1 where there are fewer.
        best_without: (N, K) int64, the same without the current item.
        confidence: (N,) float64, the probability of the item recommended first; NaN where there is none.
    """

    targets: Tensor
    positions: Tensor
    ranks: Tensor
    ranks_without: Tensor
    nats: Tensor
    best: Tensor
    best_without: Tensor
    confidence: Tensor


def judge(
    scores: Tensor,
    targets: Tensor,
    current: Tensor,
    positions: Tensor,
    *,
    unknown: int | None,
    length: int,
    log_sums: Tensor | None = None,
) -> Predictions:
    """Return what scores (N, V) predict.

    Args:
        scores: (N, V) float; NaN for an item that is not recommended.
        targets: (N,) int64, the items that followed; -1 for one without an id.
        current: (N,) int64, the items that the sessions stand at.
        positions: (N,) int64, how many items the sessions had before.
        unknown: the id of the unknown item, which is never recommended; None if there is none.
        length: K, how many items to recommend.
        log_sums: (N,) float64, what to take from a score to get the logarithm of its probability; None if the scores
            are no probabilities.
    """
    held = targets.clamp(min=0)
    places, given = ranks(scores, held, unknown), scores.gather(1, held[:, None])[:, 0]
    lost = (targets < 0) | (places > scores.size(1)) | (held == (-1 if unknown is None else unknown))
    before = scores.gather(1, current[:, None])[:, 0] > given
    if unknown is not None:
        before &= current != unknown
    best = _best(scores, unknown, length + 1)
    nats, confidence = _surprise(scores, best[:, 0], given, log_sums)
    return Predictions(
        targets,
        positions,
        places.masked_fill(lost, NOWHERE),
        (places - before.long()).masked_fill(lost | (targets == current), NOWHERE),
        nats.masked_fill(targets < 0, math.nan),
        best[:, :length],
        _left_out(best, current)[:, :length],
        confidence,
    )


def _surprise(scores: Tensor, first: Tensor, given: Tensor, log_sums: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the surprise (N,) at what followed, and the probability (N,) of what was recommended first."""
    if log_sums is None:
        missing = torch.full((len(given),), math.nan, dtype=torch.float64)
        return missing, missing
    top = scores.gather(1, first.clamp(min=0)[:, None])[:, 0]
    confidence = (top.double() - log_sums).exp().masked_fill(first < 0, math.nan)
    return log_sums - given.double(), confidence


def _best(scores: Tensor, unknown: int | None, length: int) -> Tensor:
    """Return the ids (N, length) of the highest scores, best first; -1 where there are fewer."""
    scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    if unknown is not None:
        scores[:, unknown] = -math.inf
    values, ids = scores.topk(min(length, scores.size(1)))
    ids = ids.masked_fill(values == -math.inf, -1)
    return torch.nn.functional.pad(ids, (0, length - ids.size(1)), value=-1)


def _left_out(best: Tensor, current: Tensor) -> Tensor:
    """Return the ids (N, K) without the current item, the others in their order."""
    is_current = best == current[:, None]
    order = is_current.long().sort(dim=1, stable=True).indices
    return best.gather(1, order).masked_fill(is_current.gather(1, order), -1)


def recall(comes: Tensor, rest: Tensor) -> Tensor:
    """Return the sums (K,) float64 of recall at 1 to K over N predictions.

    Args:
        comes: (N, K) bool, whether an item recommended is among those that follow in its session.
        rest: (N,) int64, how many different items follow.
    """
    return (comes.double().cumsum(1) / rest[:, None]).sum(0)
