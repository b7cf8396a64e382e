"""Measuring predictors on the same predictions, session by session."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from arraylstm.metrics import NOWHERE, Comparison, Predictions, Tally, judge, recall
from arraylstm_export.arrays import Array
from arraylstm_export.evaluation.sessions import ROWS, Batch, Window, batches

SCORES = 2**22
WINDOW = 2**16
"""How many predictions of a batch are looked at together, or those of one step."""


class Predictor(Protocol):
    """Scores the next item of sessions."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def chunks(self, batch: Batch, window: Window) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield the scores of a window's predictions, and what turns them into probabilities."""


@dataclass
class Measured:
    """What was found of one predictor.

    Attributes:
        name: its name.
        tally: its figures.
        compared: how the first predictor compares with it: for "hit" and "mrr", with and without the current item.
    """

    name: str
    tally: Tally
    compared: dict[str, Comparison] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return its figures as values for JSON."""
        compared = {name: comparison.figures() for name, comparison in self.compared.items()}
        return {"name": self.name, **self.tally.figures(), **({"compared": compared} if compared else {})}


def measure(
    predictors: Sequence[Predictor],
    sessions: Sequence[Array],
    make_tally: Callable[[], Tally],
    *,
    num_items: int,
    unknown: int | None,
    on_batch: Callable[[int], None] = lambda sessions: None,
) -> list[Measured]:
    """Measure predictors on all sessions; the first of them is compared with the others.

    Args:
        predictors: at least one.
        sessions: ids (S) int64 each.
        make_tally: makes what adds up the figures of one predictor.
        num_items: V.
        unknown: the id of the unknown item; None if there is none.
        on_batch: called with the number of sessions done.

    Raises:
        ExportError: no session has a second item to predict.
    """
    measured = [Measured(predictor.name, make_tally()) for predictor in predictors]
    for batch in batches(sessions, min(ROWS, max(1, SCORES // num_items))):
        gains = [torch.zeros(len(batch.sessions), 5, dtype=torch.float64) for _ in predictors]
        for window in batch.windows(WINDOW):
            for predictor, one, sums in zip(predictors, measured, gains, strict=True):
                _add(predictor, batch, window, one.tally, unknown, sums)
        for one, sums in zip(measured[1:], gains[1:], strict=True):
            _compare(one, gains[0] - sums, gains[0][:, -1])
        on_batch(len(batch.sessions))
    return measured


def judged(
    predictor: Predictor, batch: Batch, window: Window, *, unknown: int | None, length: int
) -> Iterator[tuple[slice, Window, Predictions]]:
    """Yield what a predictor makes of a window, part by part: the part's place, the part, and its predictions."""
    current = torch.from_numpy(batch.current(window))
    targets, positions = torch.from_numpy(window.targets), torch.from_numpy(window.ends + 1)
    for chosen, scores, log_sums in predictor.chunks(batch, window):
        made = judge(
            scores,
            targets[chosen],
            current[chosen],
            positions[chosen],
            unknown=unknown,
            length=length,
            log_sums=log_sums,
        )
        yield chosen, window.part(chosen), made


def _add(predictor: Predictor, batch: Batch, window: Window, tally: Tally, unknown: int | None, sums: Tensor) -> None:
    """Add a window's predictions to the figures, and what each session gained to sums (B, 5)."""
    depth = tally.depth
    rest = torch.from_numpy(batch.rest(window))
    for chosen, part, made in judged(predictor, batch, window, unknown=unknown, length=depth):
        recalled = [
            recall(torch.from_numpy(batch.comes(part, best.numpy())), rest[chosen])
            for best in (made.best, made.best_without)
        ]
        tally.add(made, torch.stack(recalled))
        sums.index_add_(0, torch.from_numpy(part.rows), _gains(made, depth))


def _gains(made: Predictions, depth: int) -> Tensor:
    """Return, per prediction, hit and reciprocal rank with and without the current item, and 1."""
    columns = []
    for found in (made.ranks, made.ranks_without):
        hit = found <= depth
        columns += [hit.double(), torch.where(hit, 1 / found.clamp(max=NOWHERE).double(), 0.0)]
    return torch.stack([*columns, torch.ones(len(made.ranks), dtype=torch.float64)], dim=1)


COMPARED = ("hit", "mrr", "hit_without_current", "mrr_without_current")


def _compare(one: Measured, differences: Tensor, counts: Tensor) -> None:
    for column, name in enumerate(COMPARED):
        one.compared.setdefault(name, Comparison()).add(differences[:, column], counts)


def as_counts(counts: Array) -> Tensor:
    """Return counts (V,) as a tensor."""
    return torch.from_numpy(np.asarray(counts))
