"""Fitting a next-item model to sessions, and measuring how well it predicts."""

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from arraylstm.checks import require_positive
from arraylstm.errors import DataError
from arraylstm.model import ItemModel
from arraylstm.ranks import ranks

LARGEST_LOGITS = 2**22
"""How many logits `evaluate` holds at once, unless one step of one session has more."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is fitted."""

    epochs: int = 10
    """Passes over the training sessions."""
    batch_size: int = 64
    """Sessions to a batch."""
    learning_rate: float = 0.003
    """Step size of the Adam optimiser; it falls to a tenth along a cosine."""
    bptt: int = 128
    """Steps that gradients flow back; longer sessions are cut there, their state carried over."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Seed of the order of sessions; arraylstm-train draws the weights and the split from it too."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that no fit can use."""
        for name in ("epochs", "batch_size", "bptt"):
            require_positive(name, getattr(self, name))
        for name, largest in (("learning_rate", 10.0), ("clip", math.inf)):
            if not 0 < getattr(self, name) <= largest:
                raise ValueError(f"{name} must be above 0 and at most {largest}, got {getattr(self, name)!r}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2**63, got {self.seed}")


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after a batch or at the end of an epoch."""

    epoch: int
    """Epoch, from 1."""
    done: int
    """Predictions learned from in this epoch."""
    total: int
    """Predictions in an epoch."""
    loss: float
    """Mean of the model's own loss in this epoch so far, in nats."""
    validation: "Metrics | None" = None
    """At an epoch's end: the figures on the validation sessions."""


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

    @property
    def perplexity(self) -> float:
        """The exponential of the mean cross-entropy."""
        return math.exp(min(self.loss, 700.0))


def fit(
    model: ItemModel,
    train: Sequence[Sequence[int]],
    validation: Sequence[Sequence[int]],
    options: TrainingOptions,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> int:
    """Train on sessions of item ids, in place, where the model lies, and keep the weights of the best epoch.

    It minimises the mean of `model.loss`. The best epoch has the lowest validation loss, the cross-entropy of
    `evaluate`. The weights start as they are, and dropout and lanes are drawn from torch's own generator.

    Returns:
        The epoch (from 1) whose weights were kept.

    Raises:
        DataError: no session has a second item to predict, or the loss became NaN.
    """
    total, _ = count_predictions(train, model.padding), count_predictions(validation, model.padding)
    batches_per_epoch = math.ceil(len(_predictable(train, model.padding)) / options.batch_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    steps = options.epochs * batches_per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=options.learning_rate / 10)
    order = random.Random(options.seed)
    best_epoch, best_loss, best_weights = 0, math.inf, model.state_dict()
    for epoch in range(1, options.epochs + 1):
        model.train()
        done, loss = 0, 0.0
        for batch in _batches(train, model.padding, options.batch_size, order):
            count, nats = _learn(model, batch, optimiser, options)
            schedule.step()
            done, loss = done + count, loss + nats
            on_progress(Progress(epoch, done, total, loss / done))
        metrics = evaluate(model, validation, options.batch_size)
        on_progress(Progress(epoch, done, total, loss / done, metrics))
        if metrics.loss < best_loss:
            best_epoch, best_loss, best_weights = epoch, metrics.loss, copy.deepcopy(model.state_dict())
    if best_epoch == 0:
        raise DataError(f"the loss became {loss / done}; try a smaller learning rate than {options.learning_rate}")
    model.load_state_dict(best_weights)
    model.eval()
    return best_epoch


@torch.no_grad()
def evaluate(model: ItemModel, sessions: Sequence[Sequence[int]], batch_size: int = 64) -> Metrics:
    """Predict every item of the sessions except the first of each, and measure how well.

    The ranks are those of `ranks.ranks`, as `arraylstm-serve` counts them. An item that the vocabulary's unknown item
    stands for counts as not predicted at any rank, and so does one whose scores hold a NaN.

    The logits are made a piece at a time, so that memory does not grow with the sessions' length.

    Raises:
        DataError: no session has a second item to predict.
    """
    model.eval()
    count = count_predictions(sessions, model.padding)
    rows = min(batch_size, max(1, LARGEST_LOGITS // model.num_items))
    steps = max(1, LARGEST_LOGITS // (rows * model.num_items))
    sums = torch.zeros(5, dtype=torch.float64, device=model.like().device)
    for batch in _batches(sessions, model.padding, rows):
        batch = batch.to(sums.device)
        state = model.initial_state(batch.size(0))
        for start in range(0, batch.size(1) - 1, steps):
            piece = batch[:, start : start + steps + 1]
            logits, state = model.unroll(piece[:, :-1].clamp(min=0), state)
            seen = piece[:, 1:] != model.padding
            sums += _figures(model, logits[seen], piece[:, 1:][seen])
    return Metrics(count, *(sums / count).tolist())


def _figures(model: ItemModel, scores: Tensor, targets: Tensor) -> Tensor:
    """Return the sums (5,) float64 that `Metrics` has the means of, over scores (N, V) and targets (N,)."""
    vocabulary = model.vocabulary
    unknown = model.padding if vocabulary is None or vocabulary.unknown is None else vocabulary.id(vocabulary.unknown)
    nats = F.cross_entropy(scores, targets, reduction="none").double()
    found = ranks(scores, targets).double()
    found[(targets == unknown) | nats.isnan()] = math.inf
    hits = [(found <= k).sum(dtype=torch.float64) for k in (1, 5, 10)]
    return torch.stack([*hits, (1 / found).sum(), nats.sum()])


def _learn(
    model: ItemModel, batch: Tensor, optimiser: torch.optim.Optimizer, options: TrainingOptions
) -> tuple[int, float]:
    """Take one optimiser step on a batch (B, S), back-propagating `bptt` steps at a time; return count and nats."""
    count = int((batch[:, 1:] != model.padding).sum())
    batch = batch.to(model.like().device)
    nats = torch.zeros((), dtype=torch.float64, device=batch.device)  # read once, as reading waits for a GPU
    state = model.initial_state(batch.size(0))
    optimiser.zero_grad()
    for start in range(0, batch.size(1) - 1, options.bptt):
        piece = batch[:, start : start + options.bptt + 1]
        logits, state = model.unroll(piece[:, :-1].clamp(min=0), state)
        state = [tensor.detach() for tensor in state]  # the first one is not, as it may be learned
        loss = model.loss(logits.flatten(0, 1), piece[:, 1:].flatten())
        (loss / count).backward()  # type: ignore[no-untyped-call]
        nats += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    optimiser.step()
    return count, nats.item()


def _batches(
    sessions: Sequence[Sequence[int]], padding: int, batch_size: int, order: random.Random | None = None
) -> Iterator[Tensor]:
    """Yield sessions of similar length as (B, S) int64, padded at the end; shuffled when `order` is given."""
    kept = _predictable(sessions, padding)
    if order is not None:
        order.shuffle(kept)
    kept.sort(key=len)
    starts = list(range(0, len(kept), batch_size))
    if order is not None:
        order.shuffle(starts)
    for start in starts:
        rows = [torch.tensor(session) for session in kept[start : start + batch_size]]
        yield pad_sequence(rows, batch_first=True, padding_value=padding)


def _predictable(sessions: Sequence[Sequence[int]], padding: int) -> list[Sequence[int]]:
    """Return the sessions that have an item to predict."""
    return [session for session in sessions if any(item != padding for item in islice(session, 1, None))]


def count_predictions(sessions: Sequence[Sequence[int]], padding: int) -> int:
    """Return how many items there are to predict; a session's first item and padding are not.

    Raises:
        DataError: there are none.
    """
    count = sum(item != padding for session in sessions for item in islice(session, 1, None))
    if count == 0:
        raise DataError(f"none of {len(sessions)} sessions has a second item to predict")
    return count
