"""Scores become logarithms of probabilities, up to a constant, that hold for new sessions: the API promises them."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from arraylstm.nextitem import NextItemModel
from arraylstm.training.batches import Batches
from arraylstm.training.forward import Forward
from arraylstm.training.losses import Predictions, item_counts
from arraylstm.training.measure import LARGEST_LOGITS, LARGEST_PIECE, count_predictions, evaluate

LARGEST_SAMPLE = 2048
"""Predictions that the two numbers are fitted on, at most."""
SMALLEST_SAMPLE = 100
"""Predictions without which a loss that gives probabilities is left as it is: fewer say too little."""
LARGEST_FACTOR = 20.0
"""Scores are multiplied by this at most, and divided by this at most: an item must stay likelier than another."""


def calibrate(
    model: NextItemModel, train: Sequence[Sequence[int]], validation: Sequence[Sequence[int]], only_ranks: bool
) -> float:
    """Multiply the scores by the factor of the lowest cross-entropy on the validation sessions, which moves no rank.

    Args:
        model: the model, whose weights are changed.
        train: sessions in which items are counted.
        validation: sessions that the factor is fitted on.
        only_ranks: the model was fitted by a loss that draws items by their count and learns scores that leave it out.
            So a multiple of log(count) is added too, unless that lowers the share of items among the first 20.

    Returns:
        The factor, 1 if there are too few predictions to fit one on.
    """
    if not only_ranks and count_predictions(validation, model.padding) < SMALLEST_SAMPLE:
        return 1.0
    log_counts = item_counts(train, model.num_items).clamp(min=1).log().to(model.like())
    found = []
    for with_counts in (True, False) if only_ranks else (False,):
        candidate = copy.deepcopy(model)
        a, b = _fitted(candidate, log_counts, validation, with_counts)
        candidate.rescale(a, b * log_counts)
        found.append((evaluate(candidate, validation).hit20, a, candidate))
    _, factor, best = max(found, key=lambda given: given[0])  # the first of equals
    model.load_state_dict(best.state_dict())
    return factor


def _fitted(
    model: NextItemModel, log_counts: Tensor, sessions: Sequence[Sequence[int]], with_counts: bool
) -> tuple[float, float]:
    """Return a and b (0 unless it is fitted)."""
    sample = _predictions(model, sessions)
    numbers = torch.tensor([0.0, 0.0], device=log_counts.device, requires_grad=True)  # log a, and b
    optimiser = torch.optim.LBFGS([numbers], max_iter=30, line_search_fn="strong_wolfe")
    at_once = max(1, LARGEST_LOGITS // model.num_items)

    def loss() -> float:
        optimiser.zero_grad()
        total = 0.0
        for part in sample.split(at_once):
            with torch.no_grad():
                scores = model.score(part.h, part.items).float()
            logits = numbers[0].exp() * scores + (numbers[1] * log_counts if with_counts else 0.0)
            nats = F.cross_entropy(logits, part.targets, reduction="sum") / len(sample.h)
            nats.backward()  # type: ignore[no-untyped-call]
            total += nats.item()
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    log_a, b = numbers.tolist()
    return min(max(math.exp(log_a), 1 / LARGEST_FACTOR), LARGEST_FACTOR), b


@torch.no_grad()
def _predictions(model: NextItemModel, sessions: Sequence[Sequence[int]]) -> Predictions:
    """Return `LARGEST_SAMPLE` predictions, spread evenly over all there are."""
    model.eval()
    forward = Forward(model)
    found = []
    for piece in Batches(sessions, model.padding, 64, LARGEST_PIECE, LARGEST_PIECE).in_order():
        piece = piece.to(forward.device)
        h = forward.outputs(piece.items, piece.begins).flatten(0, 1)
        found.append(Predictions(h[piece.places], piece.items.flatten()[piece.places], piece.targets))
    every = -(-sum(len(part.targets) for part in found) // LARGEST_SAMPLE)
    return Predictions(*(torch.cat(parts)[::every] for parts in zip(*found)))
