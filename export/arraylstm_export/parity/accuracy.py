"""What a precision below fp32 costs: how a form's predictions on real sequences differ from the model's own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from arraylstm.ranks import ranks
from arraylstm_export.arrays import Array
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.runner import Runner
from arraylstm_export.interface import Interface
from arraylstm_export.parity.scenarios import Scenario, pieces, steps_at_once
from arraylstm_export.parity.schedules import at_once

_TOP = 10


@dataclass(frozen=True)
class Quality:
    """How well a form predicts the next item, over steps."""

    top_1: float
    """Share with the next item ranked first, by the rule of `arraylstm.ranks`."""
    top_10: float
    """Share with the next item ranked among the first ten."""
    perplexity: float


@dataclass(frozen=True)
class Accuracy:
    """A form compared with the model it was made from, over the steps that have a next item."""

    steps: int
    before: Quality
    after: Quality
    same_top_1: float
    """Share of steps with the same item scored highest."""
    shared_top_10: float
    """Mean share of the ten items scored highest (all items, if there are fewer) that are the same for both."""
    rms_error: float
    """Root of the mean squared difference of the logits."""
    largest_error: float

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the rows of a table: what, before, after."""
        return [
            ("next item scored highest", f"{self.before.top_1:.2%}", f"{self.after.top_1:.2%}"),
            ("next item among the first 10", f"{self.before.top_10:.2%}", f"{self.after.top_10:.2%}"),
            ("perplexity", f"{self.before.perplexity:.4g}", f"{self.after.perplexity:.4g}"),
            ("same item scored highest", "", f"{self.same_top_1:.2%}"),
            ("first 10 in common", "", f"{self.shared_top_10:.2%}"),
            ("logit error, root mean square", "", f"{self.rms_error:.1e}"),
            ("logit error, largest", "", f"{self.largest_error:.1e}"),
        ]


def compare(
    before: Runner, after: Runner, interface: Interface, sequences: Sequence[Array], unknown: int | None = None
) -> Accuracy:
    """Run two forms over sequences, each from the initial state, and compare what they predict.

    Args:
        before: the model.
        after: the form to judge.
        interface: what both take and return.
        sequences: item ids (S) int64 each, S at least 2; see `checked_sequences`.
        unknown: the id of the unknown item, which is never a hit; None if there is none.
    """
    sums = _Sums(unknown)
    for scenario, following in _batches(sequences, interface):
        states = [scenario.state] * 2
        for start, end in pieces(scenario, interface.num_items):
            parts = [scenario.piece(start, end, state) for state in states]
            within = np.arange(end - start) < parts[0].lengths[:, None]
            results = [at_once(run, part) for run, part in zip((before, after), parts, strict=True)]
            states = [state for _, state in results]
            one, other = (logits[within].astype(np.float64) for (logits, *_), _ in results)
            sums.add(one, other, following[:, start:end][within])
    return sums.accuracy()


def checked_sequences(sequences: Iterable[Array], num_items: int) -> list[Array]:
    """Return, as int64, the sequences that have a next item to predict, which are those of two items or more.

    Raises:
        ExportError: a sequence does not consist of item ids, or none has two items.
    """
    given = [np.asarray(sequence) for sequence in sequences]
    for number, sequence in enumerate(given):
        _check_items(f"held-out sequence {number}", sequence, num_items)
    usable = [sequence.astype(np.int64) for sequence in given if len(sequence) > 1]
    if not usable:
        raise ExportError(f"none of the {len(given)} held-out sequences has two items, one to predict the next from")
    return usable


def _check_items(name: str, sequence: Array, num_items: int) -> None:
    if sequence.ndim != 1 or (sequence.size and sequence.dtype.kind not in "iu"):
        raise ExportError(f"{name}: must be integers (S), got {sequence.dtype} {list(sequence.shape)}")
    wrong = sequence[(sequence < 0) | (sequence >= num_items)]
    if wrong.size:
        raise ExportError(f"{name}: items are 0 to {num_items - 1}, got {wrong[0]}")


class _Sums:
    """Running sums over steps, so that the logits need not be kept."""

    def __init__(self, unknown: int | None) -> None:
        self.unknown = unknown
        self.steps = self.values = 0
        self.largest = 0.0
        self.total = np.zeros(9)

    def add(self, one: Array, other: Array, following: Array) -> None:
        """Add steps: logits (N, V) of both forms and the items (N) that followed."""
        error = np.abs(one - other)
        first, second = _highest(one), _highest(other)
        shared = (first[:, :, None] == second[:, None, :]).any(2).mean(1)
        parts = [*_quality(one, following, self.unknown), *_quality(other, following, self.unknown)]
        parts += [first[:, 0] == second[:, 0], shared, (error**2).sum(1)]
        self.total += [part.sum() for part in parts]
        self.steps, self.values = self.steps + len(one), self.values + one.size
        self.largest = max(self.largest, float(error.max()))

    def accuracy(self) -> Accuracy:
        """Return the shares and means that the sums give."""
        *qualities, same, shared, squares = self.total.tolist()
        before, after = (
            Quality(top_1 / self.steps, top_10 / self.steps, float(np.exp(nats / self.steps)))
            for top_1, top_10, nats in (qualities[:3], qualities[3:])
        )
        rms = float(np.sqrt(squares / self.values))
        return Accuracy(self.steps, before, after, same / self.steps, shared / self.steps, rms, self.largest)


def _highest(logits: Array) -> Array:
    """Return the ten items scored highest (N, 10), best first; of items with equal scores, the lower ids."""
    count = min(_TOP, logits.shape[1])
    bound = np.partition(logits, -count, axis=1)[:, -count]
    rows, ids = np.nonzero(logits >= bound[:, None])  # ten in a row, or more where the tenth has equals
    order = np.lexsort((ids, -logits[rows, ids], rows))
    starts = np.searchsorted(rows, np.arange(len(logits)))
    best: Array = ids[order][starts[:, None] + np.arange(count)]
    return best


def _quality(logits: Array, following: Array, unknown: int | None) -> tuple[Array, Array, Array]:
    """Return, per step, whether the next item came first, whether it was among the ten, and its surprise in nats."""
    rank = ranks(torch.from_numpy(logits), torch.from_numpy(following), unknown).numpy()
    if unknown is not None:
        rank = np.where(following == unknown, _TOP + 1, rank)
    top = logits.max(1)
    nats = top + np.log(np.exp(logits - top[:, None]).sum(1)) - logits[np.arange(len(logits)), following]
    return rank <= 1, rank <= _TOP, nats


def _batches(sequences: Iterable[Array], interface: Interface) -> Iterator[tuple[Scenario, Array]]:
    """Yield batches from the initial state, each with the items (B, S) that follow; similar lengths go together."""
    waiting = sorted(sequences, key=len)
    while waiting:
        rows = max(1, steps_at_once(interface.num_items) // (len(waiting[-1]) - 1))
        batch, waiting = waiting[-rows:], waiting[:-rows]
        items = np.zeros((len(batch), len(batch[-1])), np.int64)
        for row, sequence in enumerate(batch):
            items[row, : len(sequence)] = sequence
        lengths = np.array([len(sequence) - 1 for sequence in batch])
        yield Scenario("held out", items[:, :-1], lengths, interface.start(len(batch))), items[:, 1:]
