"""Sums over predictions, and the figures that they give."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arraylstm.metrics.counted import Counted, add_groups
from arraylstm.metrics.predictions import Predictions

POSITIONS = (1, 2, 3, 5, 10, 20, 50)
"""Where groups of positions end; a position is the number of items that the session had before."""
BINS = 10
"""Groups of predictions of about the same probability, from 0 to 1."""


class Tally:
    """Adds predictions up, and gives the figures of all.

    Args:
        cutoffs: the lengths of list to give figures for.
        num_items: V.
        unknown: the id of the unknown item; None if there is none.
        counts: (V,) how often each item occurs where the model learned; None if that is not known.
    """

    def __init__(
        self, cutoffs: Sequence[int], num_items: int, unknown: int | None = None, counts: Tensor | None = None
    ) -> None:
        self.cutoffs, self.depth = tuple(cutoffs), max(cutoffs)
        self._known = num_items - (unknown is not None)
        self._counts = counts
        self._sums: dict[str, Counted] = {}
        self._positions: dict[int, Counted] = {}
        self._popularity: dict[int, Counted] = {}
        self._recommended = {name: torch.zeros(num_items, dtype=torch.bool) for name in ("all", "without_current")}
        self._shown, self._taken = {"all": [0.0, 0], "without_current": [0.0, 0]}, [0.0, 0]
        self._recalled = torch.zeros(2, self.depth, dtype=torch.float64)
        self._nats, self._rated, self._unknown = 0.0, 0, 0
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64)
        self._unknown_id = unknown
        self._quarters = None if counts is None else quarters(counts)

    def add(self, made: Predictions, recalled: Tensor | None = None) -> None:
        """Add predictions.

        Args:
            made: the predictions.
            recalled: (2, K) float64, the sums of recall over them, for `best` and `best_without`; see `recall`.
        """
        for name, found in (("all", made.ranks), ("without_current", made.ranks_without)):
            self._sums.setdefault(name, Counted(self.depth)).add(found)
        groups = torch.bucketize(made.positions, torch.tensor(POSITIONS))
        add_groups(self._positions, groups, made.ranks, self.depth)
        rated = ~made.nats.isnan()
        self._nats, self._rated = self._nats + float(made.nats[rated].sum()), self._rated + int(rated.sum())
        lost = (made.targets < 0) | (made.targets == (-1 if self._unknown_id is None else self._unknown_id))
        self._unknown += int(lost.sum())
        if recalled is not None:
            self._recalled += recalled
        self._add_popularity(made, ~lost)
        self._add_confidence(made)

    def _add_popularity(self, made: Predictions, known: Tensor) -> None:
        for name, best in (("all", made.best), ("without_current", made.best_without)):
            shown = best[:, : self.depth]
            shown = shown[shown >= 0]
            self._recommended[name][shown] = True
            if self._counts is not None:
                _add_mean(self._shown[name], self._counts[shown])
        if self._counts is not None and self._quarters is not None:
            _add_mean(self._taken, self._counts[made.targets[known]])
            add_groups(self._popularity, self._quarters[made.targets[known]], made.ranks[known], self.depth)

    def _add_confidence(self, made: Predictions) -> None:
        rated = ~made.confidence.isnan()
        confidence, right = made.confidence[rated], (made.ranks[rated] == 1).double()
        bins = (confidence * BINS).long().clamp(0, BINS - 1)
        rows = torch.stack([torch.ones_like(right), confidence, right], dim=1)
        self._bins.index_add_(0, bins, rows)

    def figures(self) -> dict[str, Any]:
        """Return all figures, as values for JSON."""
        rated = self._rated or math.nan
        found: dict[str, Any] = {
            "predictions": self._sums["all"].predictions if self._sums else 0,
            "unknown": self._unknown,
            "loss": None if not self._rated else self._nats / rated,
            "perplexity": None if not self._rated else math.exp(min(self._nats / rated, 700.0)),
        }
        for row, name in enumerate(self._sums):
            found[name] = {**self._sums[name].figures(self.cutoffs), **self._lists(row, name)}
        found["by_position"] = [
            {"positions": _span(group), **self._group(counted)} for group, counted in sorted(self._positions.items())
        ]
        found["by_popularity"] = [
            {"quarter": group + 1, **self._group(counted)} for group, counted in sorted(self._popularity.items())
        ]
        found["calibration"] = [
            {"predictions": int(count), "probability": total / count, "right": right / count}
            for count, total, right in self._bins.tolist()
            if count
        ]
        return found

    def _group(self, counted: Counted) -> dict[str, Any]:
        return {"predictions": counted.predictions, **counted.figures(self.cutoffs)}

    def _lists(self, row: int, name: str) -> dict[str, float | None]:
        """Return the figures of what was recommended."""
        predictions = max(1, self._sums[name].predictions)
        recalled = {f"recall@{k}": float(self._recalled[row, k - 1]) / predictions for k in self.cutoffs}
        (shown, lists), (taken, items) = self._shown[name], self._taken
        bias = (shown / lists) / (taken / items) if lists and items and taken else None
        coverage = int(self._recommended[name].sum()) / max(1, self._known)
        return {**recalled, f"coverage@{self.depth}": coverage, f"popularity@{self.depth}": bias}


def quarters(counts: Tensor) -> Tensor:
    """Return the group (V,) int64 of each item: 0 for the most frequent ones, a quarter of all events."""
    order = counts.argsort(descending=True, stable=True)
    before = counts[order].double().cumsum(0) - counts[order]
    groups = torch.empty_like(order)
    groups[order] = (4 * before / counts.sum().clamp(min=1)).long().clamp(max=3)
    return groups


def _add_mean(sums: list[Any], values: Tensor) -> None:
    sums[0] += float(values.double().sum())
    sums[1] += len(values)


def _span(group: int) -> str:
    first = 1 if group == 0 else POSITIONS[group - 1] + 1
    if group == len(POSITIONS):
        return f"{first} and more"
    return str(first) if first == POSITIONS[group] else f"{first} to {POSITIONS[group]}"
