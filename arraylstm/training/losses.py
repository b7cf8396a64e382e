"""What is minimised, over the predictions of a batch: N outputs of the cells, the items read, those that followed."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from arraylstm.model import ItemModel
from arraylstm.nextitem import NextItemModel
from arraylstm.training.options import TrainingOptions

LARGEST_SCORES = 2**24
"""How many scores a loss holds at once, unless one prediction has more."""


class Predictions(NamedTuple):
    """What N predictions are made from, and what they should have been."""

    h: Tensor
    """The cells' outputs (N, H)."""
    items: Tensor
    """(N,) int64: the items that were read last."""
    targets: Tensor
    """(N,) int64: the items that followed."""

    def split(self, size: int) -> list["Predictions"]:
        """Return parts of so many predictions."""
        return [Predictions(*parts) for parts in zip(*(torch.split(tensor, size) for tensor in self))]


Objective = Callable[[Predictions], Tensor]
"""Returns the sum of the losses of predictions, a scalar."""


def make_objective(model: ItemModel, sessions: Sequence[Sequence[int]], options: TrainingOptions) -> Objective:
    """Return the loss that the options name; items are sampled by their counts in the sessions.

    Raises:
        ValueError: the model is none that samples can be scored by, or the loss goes without label smoothing.
    """
    smoothing = options.label_smoothing
    if options.loss == "full":
        return full(model, smoothing)
    if not isinstance(model, NextItemModel):
        raise ValueError(  # noqa: TRY004 - the option does not fit
            f"loss {options.loss} needs a NextItemModel, got {type(model).__name__}: take full"
        )
    if smoothing and options.loss != "sampled":
        raise ValueError(f"label_smoothing goes with full and sampled, not with {options.loss}")
    weighted = options.loss == "sampled"
    sample = Sample(model, sessions, options.negatives, options.negatives_power, weighted)
    if weighted:
        return lambda given: sampled(sample.scores(given), smoothing)
    if options.loss == "gbce":
        return lambda given: gbce(sample.scores(given), options.gbce_t)
    return lambda given: bpr_max(sample.scores(given), options.bpr_penalty)


def learn(objective: Objective, width: int, given: Predictions) -> Tensor:
    """Add the gradient of the mean loss, and return the sum of the losses, outside of any gradient.

    No more than `LARGEST_SCORES` scores are held at once: a part of the outputs is scored and differentiated after the
    other, and then what is below them once.

    Args:
        objective: the loss.
        width: scores to a prediction.
        given: the predictions.
    """
    at_once = max(1, LARGEST_SCORES // width)
    count = max(1, given.targets.size(0))
    if count <= at_once:
        nats = objective(given)
        (nats / count).backward()  # type: ignore[no-untyped-call]
        return nats.detach()
    above = given.h.detach().requires_grad_()
    total = torch.zeros((), device=above.device)
    for part in given._replace(h=above).split(at_once):
        nats = objective(part)
        (nats / count).backward()  # type: ignore[no-untyped-call]
        total += nats.detach()
    given.h.backward(above.grad)  # type: ignore[no-untyped-call]
    return total


def full(model: ItemModel, smoothing: float) -> Objective:
    """Return the model's own loss over all items, or cross-entropy with label smoothing."""
    if smoothing == 0:
        return lambda given: model.loss(model.score(given.h, given.items).float(), given.targets)
    if type(model).loss is not ItemModel.loss:
        raise ValueError(f"label_smoothing is an argument of {type(model).__name__} itself; give it there")
    return lambda given: F.cross_entropy(
        model.score(given.h, given.items).float(), given.targets, reduction="sum", label_smoothing=smoothing
    )


class Sample:
    """Draws items for a batch, and scores them.

    An item is drawn with the probability q = count^power / sum(count^power), with replacement.

    Args:
        model: what scores.
        sessions: where items are counted.
        negatives: n, the size of a sample.
        power: 0 draws all items alike.
        weighted: take from a drawn item's score the logarithm of how often it is expected in a sample, n q. Then the
            sum over exp(score) of the sample is, in the mean, that of all items (Bengio and Senécal 2008).
    """

    def __init__(
        self,
        model: NextItemModel,
        sessions: Sequence[Sequence[int]],
        negatives: int,
        power: float,
        weighted: bool = False,
    ) -> None:
        self._model = model
        self._negatives = negatives
        weights = item_counts(sessions, model.num_items).double().clamp(min=1) ** power
        q = weights / weights.sum()
        device = model.like().device
        self._log_expected = (q * negatives).log().float().to(device) * weighted
        self._up_to = q.cumsum(0).float().to(device)

    def scores(self, given: Predictions) -> "Scores":
        """Draw one sample for all predictions, and score it and the targets."""
        drawn = torch.rand(self._negatives, device=given.h.device)
        items = torch.searchsorted(self._up_to, drawn).clamp(max=self._model.num_items - 1)
        query = self._model.query(given.h)
        rows, biases = self._model.rows(torch.cat([items, given.targets]))  # one look-up, as each has a dense gradient
        log_expected = self._log_expected[items]
        negative = F.linear(query, rows[: self._negatives], biases[: self._negatives] - log_expected).float()
        positive = (query * rows[self._negatives :]).sum(1).float() + biases[self._negatives :]
        repeat = self._model.repeat
        if isinstance(repeat, Tensor):
            negative = negative + repeat * (given.items[:, None] == items)
            positive = positive + repeat * (given.items == given.targets)
        hits = given.targets[:, None] == items
        return Scores(positive, negative, hits, log_expected, self._model.num_items)


class Scores(NamedTuple):
    """The scores of a batch's targets and of its sample of n items."""

    positive: Tensor
    """The targets' scores (N,)."""
    negative: Tensor
    """The drawn items' scores (N, n)."""
    hits: Tensor
    """Bool (N, n), where a drawn item is the target; it counts for nothing there."""
    log_expected: Tensor
    """(n,) what was taken from the drawn items' scores."""
    num_items: int
    """V."""


def sampled(scores: Scores, smoothing: float = 0.0) -> Tensor:
    """Return the sampled softmax: the cross-entropy, the sum over all items estimated from a weighted sample.

    The target is no estimate: it stands in the sum as it is.
    """
    others = scores.negative.masked_fill(scores.hits, -torch.inf)
    log_sum = torch.logaddexp(scores.positive, torch.logsumexp(others, 1))
    nats = log_sum - scores.positive
    if smoothing:
        shares = (-scores.log_expected).expand_as(others).masked_fill(scores.hits, -torch.inf).softmax(1)
        nats = (1 - smoothing) * nats + smoothing * (
            log_sum - (shares * (scores.negative + scores.log_expected)).sum(1)
        )
    return nats.sum()


def gbce(scores: Scores, t: float) -> Tensor:
    """Return the generalised binary cross-entropy (Petrov and Macdonald 2023, gSASRec), a mean over the sample.

    -log(sigmoid(s+)^beta) - sum log(1 - sigmoid(s-)), where beta = a (t (1 - 1/a) + 1/a), a = n / (V - 1)
    """
    share = min(1.0, scores.negative.size(1) / max(1, scores.num_items - 1))
    beta = share * (t * (1 - 1 / share) + 1 / share)
    negative = F.softplus(scores.negative).masked_fill(scores.hits, 0.0)
    return (beta * F.softplus(-scores.positive) + negative.sum(1)).sum()


def bpr_max(scores: Scores, penalty: float) -> Tensor:
    """Return BPR-max (Hidasi and Karatzoglou 2018): -log sum p_j sigmoid(s+ - s_j), and a penalty on sum p_j s_j^2.

    p is the softmax over the sample's scores.
    """
    log_p = scores.negative.masked_fill(scores.hits, -torch.inf).log_softmax(1)
    won = torch.logsumexp(log_p + F.logsigmoid(scores.positive[:, None] - scores.negative), 1)
    return (penalty * (log_p.exp() * scores.negative.square()).sum(1) - won).sum()


def item_counts(sessions: Sequence[Sequence[int]], num_items: int) -> Tensor:
    """Return how often each item occurs in sessions (V,) int64; ids outside the items are padding."""
    ids = torch.tensor(list(chain.from_iterable(sessions)), dtype=torch.int64, device="cpu")
    return torch.bincount(ids[(ids >= 0) & (ids < num_items)], minlength=num_items)
