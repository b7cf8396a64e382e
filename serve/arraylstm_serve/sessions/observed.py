"""What was expected of each item that a request sent, the items that were left out among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from arraylstm_serve.engine.batcher import UNPREDICTED, Observed


def observed_of_all(
    count: int, walked: Sequence[Observed], unlisted: frozenset[int], last_rank: int, *, begun: bool
) -> Sequence[Observed]:
    """Return what was expected of each of `count` items.

    An item that was left out has no probability, and the last rank; nothing was expected before the session's first
    item.

    Args:
        count: how many items were sent.
        walked: what was expected of those that the session consumed.
        unlisted: the places of the items that the model has no label for; they were left out if `walked` is shorter.
        last_rank: the rank behind all items that can be predicted.
        begun: whether the session had consumed an item before.
    """
    if len(walked) == count:
        return walked
    return list(_spread(count, iter(walked), unlisted, (None, last_rank), begun))


def _spread(
    count: int, walked: Iterator[Observed], unlisted: frozenset[int], left_out: Observed, begun: bool
) -> Iterator[Observed]:
    for place in range(count):
        if place in unlisted:
            yield left_out if begun else UNPREDICTED
        else:
            begun = True
            yield next(walked)
