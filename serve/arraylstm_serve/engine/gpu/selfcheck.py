"""Check what a device reports of a step against the host's own computation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arraylstm_serve.arrays import Doubles, Floats
from arraylstm_serve.engine.ranking import log_sum_exp

TOLERANCE = 1e-4
"""The tolerance of the checks at the start. They find mixed-up rows and wrong items, not rounding errors."""


def ranked_right(tops: Floats, ids: NDArray[Any], logits: Floats) -> bool:
    """Whether a row's (k,) `tops` and `ids` are the most likely items of its logits (V,), near ties in any order."""
    likely = log_probabilities(logits)
    best = np.sort(likely)[::-1][: len(tops)]
    return (
        len(set(ids.tolist())) == len(ids)
        and np.allclose(tops, best, rtol=TOLERANCE, atol=TOLERANCE)
        and np.allclose(likely[ids], best, rtol=TOLERANCE, atol=TOLERANCE)
    )


def observed_right(value: float, above: float, logits: Floats, item: int, unknown: int | None) -> bool:
    """Whether a row's log-probability of an item, and how many known items are more likely, are those of its logits."""
    likely = log_probabilities(logits)
    known = np.delete(likely, unknown) if unknown is not None else likely
    least, most = (int((known > likely[item] + room).sum()) for room in (TOLERANCE, -TOLERANCE))
    return bool(np.isclose(value, likely[item], rtol=TOLERANCE, atol=TOLERANCE)) and least <= above <= most


def step_right(
    found: Mapping[str, NDArray[Any]], before: Floats, after: Floats, items: NDArray[Any], unknown: int | None
) -> bool:
    """Whether the first, middle and last row of a step were reported right.

    Args:
        found: the outputs of `graphs.step_graph` that are not rows.
        before: (B, V) the logits of the source rows.
        after: (B, V) the logits of the target rows.
        items: (B,) the items.
        unknown: the id of the unknown item, if there is one.
    """
    for row in {0, len(items) // 2, len(items) - 1}:
        if not np.isfinite(after[row]).all():
            continue  # such a row is never reported
        value, above = float(found["value"][row, 0]), float(found["above"][row, 0])
        if not ranked_right(found["tops"][row], found["top_ids"][row], after[row]):
            return False
        if not observed_right(value, above, before[row], int(items[row]), unknown):
            return False
    return True


def log_probabilities(logits: Floats) -> Doubles:
    """Return the log-probabilities (V,) of one row of logits."""
    likely: Doubles = logits - log_sum_exp(logits[None])
    return likely
