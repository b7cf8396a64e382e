"""Measuring how well a model predicts the items of sessions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from arraylstm.errors import DataError
from arraylstm.model import ItemModel
from arraylstm.ranks import ranks
from arraylstm.training.batches import Batches
from arraylstm.training.forward import Forward

LARGEST_LOGITS = 2**22
"""How many logits `evaluate` holds at once, unless one prediction has more."""
LARGEST_PIECE = 2**14
"""How many items `evaluate` reads at once."""


@dataclass(frozen=True)
class Metrics:
    """How well the next items of sessions were predicted; a session's first item and padding do not count."""

    predictions: int
    top1: float
    """Share of items that had been given the highest probability."""
    top5: float
    top10: float
    mrr: float
    """Mean reciprocal rank."""
    loss: float
    """Mean cross-entropy in nats, whatever loss the model was fitted by, so that models can be compared."""
    hit20: float
    """Share of items among the 20 most likely ones."""
    mrr20: float
    """Mean reciprocal rank, in which a rank beyond 20 counts 0."""

    @property
    def perplexity(self) -> float:
        """The exponential of the mean cross-entropy."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def evaluate(model: ItemModel, sessions: Sequence[Sequence[int]], batch_size: int = 64) -> Metrics:
    """Predict every item of the sessions except the first of each, and measure how well.

    The ranks are those of `ranks.ranks`, as `arraylstm-serve` counts them. An item that the vocabulary's unknown item
    stands for counts as not predicted at any rank, and so does one whose scores hold a NaN.

    The logits are made a part at a time, so that memory does not grow with the sessions' length.

    Raises:
        DataError: no session has a second item to predict.
    """
    model.eval()
    count = count_predictions(sessions, model.padding)
    tokens = max(1, min(LARGEST_PIECE, LARGEST_LOGITS // model.layers.input_size))
    forward = Forward(model)
    sums = torch.zeros(7, dtype=torch.float64, device=forward.device)
    for piece in Batches(sessions, model.padding, batch_size, tokens, tokens).in_order():
        piece = piece.to(forward.device)
        h = forward.outputs(piece.items, piece.begins).flatten(0, 1)
        at_once = max(1, LARGEST_LOGITS // model.num_items)
        for places, targets in zip(torch.split(piece.places, at_once), torch.split(piece.targets, at_once)):
            scores = model.score(h[places], piece.items.flatten()[places])
            sums += _figures(model, scores, targets)
    return Metrics(count, *(sums / count).tolist())


def _figures(model: ItemModel, scores: Tensor, targets: Tensor) -> Tensor:
    """Return the sums (7,) float64 that `Metrics` has the means of, over scores (N, V) and targets (N,)."""
    unknown = None if model.vocabulary is None else model.vocabulary.unknown_id
    nats = F.cross_entropy(scores, targets, reduction="none").double()
    found = ranks(scores, targets, unknown).double()
    found[nats.isnan() if unknown is None else (targets == unknown) | nats.isnan()] = math.inf
    top1, top5, top10, hit20 = [(found <= k).sum(dtype=torch.float64) for k in (1, 5, 10, 20)]
    reciprocal = 1 / found
    mrr20 = reciprocal.masked_fill(found > 20, 0.0).sum()
    return torch.stack([top1, top5, top10, reciprocal.sum(), nats.sum(), hit20, mrr20])


def count_predictions(sessions: Sequence[Sequence[int]], padding: int) -> int:
    """Return how many items there are to predict; a session's first item and padding are not.

    Raises:
        DataError: there are none.
    """
    count = sum(item != padding for session in sessions for item in islice(session, 1, None))
    if count == 0:
        raise DataError(f"none of {len(sessions)} sessions has a second item to predict")
    return count
