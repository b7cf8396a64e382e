"""The rank that scores give to an item: the one rule for figures of quality, here and in the server's `observed`."""

from torch import Tensor


def ranks(scores: Tensor, targets: Tensor, unknown: int | None = None) -> Tensor:
    """Return the ranks (N,) int64 of the targets (N,) int64 by scores (N, V): 1 is the most likely item.

    A rank is one more than the number of items with a higher score, so items of equal score share the best of their
    ranks. A score that is NaN has the rank V + 1, which no item has.

    The unknown item is never recommended, so it takes no place before another item, and its own rank is V, behind all
    others.

    Args:
        scores: (N, V) of any float dtype.
        targets: (N,) int64 ids in [0, V).
        unknown: the id of the vocabulary's unknown item; None if there is none.
    """
    given = scores.gather(1, targets[:, None])
    places = (scores > given).sum(1) + 1
    if unknown is not None:
        places -= (scores[:, unknown] > given[:, 0]).long()
        places = places.masked_fill(targets == unknown, scores.size(1))
    return places.masked_fill(given[:, 0].isnan(), scores.size(1) + 1)
