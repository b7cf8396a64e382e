"""The rank that scores give to an item: the one rule for figures of quality, here and in the server's `observed`."""

from torch import Tensor


def ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the ranks (N,) int64 of the targets (N,) int64 by scores (N, V): 1 is the most likely item.

    A rank is one more than the number of items with a higher score, so items of equal score share the best of their
    ranks. A score that is NaN has the rank V + 1, which no item has.
    """
    given = scores.gather(1, targets[:, None])
    above = (scores > given).sum(1)
    return (above + 1).masked_fill(given[:, 0].isnan(), scores.size(1) + 1)
