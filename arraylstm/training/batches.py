"""Sessions as batches: rows of similar length beside each other, long sessions in pieces that carry their state."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

_EPOCH_STRIDE = 0x9E3779B97F4A7C15  # so that (seed, epoch) and (seed + 1, epoch - 1) differ
LARGEST_PADDING = 0.5
"""Share of a session's length that may be padding beside the longest session of its batch."""


class Piece(NamedTuple):
    """A batch of sessions, or of their next items."""

    items: Tensor
    """(B, S) int64: what is read, padding as 0."""
    targets: Tensor
    """(N,) int64: the items to predict, padding left out."""
    places: Tensor
    """(N,) int64: where in B * S each target is predicted."""
    begins: bool
    """Whether the rows begin here. Otherwise they go on from the first B rows of the piece before."""

    def to(self, device: torch.device) -> "Piece":
        """Return the piece on a device; a GPU copies it while the program goes on."""
        if device.type == "cpu":
            return self
        items, targets, places = (
            tensor.pin_memory().to(device, non_blocking=True) for tensor in (self.items, self.targets, self.places)
        )
        return Piece(items, targets, places, self.begins)


class Batches:
    """The pieces of a set of sessions, as many in every pass over them.

    Sessions are sorted by length, those of equal length at random. A batch holds the next ones of them: at most
    `batch_size`, at most `batch_tokens` items with the padding, and none much shorter than the longest. A session
    that is longer than `steps` goes through several pieces; rows that have ended leave the batch, so a long session
    costs its neighbours no padding.

    Args:
        sessions: item ids; those with nothing to predict are left out.
        padding: the id that is neither predicted nor learned from.
        batch_size: rows to a piece, at most.
        batch_tokens: rows times steps of a piece, at most, but one step of one row at least.
        steps: items that are read in a piece, at most.
    """

    def __init__(
        self, sessions: Sequence[Sequence[int]], padding: int, batch_size: int, batch_tokens: int, steps: int
    ) -> None:
        kept = [session for session in sessions if any(item != padding for item in islice(session, 1, None))]
        self._padding = padding
        self._steps = min(steps, batch_tokens)
        self._flat = torch.tensor(list(chain.from_iterable(kept)), dtype=torch.int64, device="cpu")
        self._lengths = torch.tensor([len(session) for session in kept], dtype=torch.int64, device="cpu")
        self._starts = self._lengths.cumsum(0) - self._lengths
        lengths = sorted(map(len, kept), reverse=True)
        self._groups = self._cut(lengths, batch_size, batch_tokens)
        self._pieces = sum(-(-(lengths[start] - 1) // self._steps) for start, _ in self._groups)

    def __len__(self) -> int:
        """Return how many pieces a pass has."""
        return self._pieces

    def in_order(self) -> Iterator[Piece]:
        """Yield the pieces of all sessions, the longest first."""
        yield from self._walk(self._lengths.argsort(descending=True, stable=True), self._groups, None)

    def shuffled(self, seed: int, epoch: int, reverse: float = 0.0) -> Iterator[Piece]:
        """Yield the pieces in the order that belongs to a seed and an epoch, sessions reversed with a probability."""
        random = torch.Generator("cpu").manual_seed((seed + epoch * _EPOCH_STRIDE) % 2**63)
        order = torch.randperm(len(self._lengths), generator=random, device="cpu")
        order = order[self._lengths[order].argsort(descending=True, stable=True)]
        backwards = torch.rand(len(order), generator=random, device="cpu") < reverse
        groups = [self._groups[at] for at in torch.randperm(len(self._groups), generator=random, device="cpu").tolist()]
        yield from self._walk(order, groups, backwards)

    def _cut(self, lengths: list[int], batch_size: int, batch_tokens: int) -> list[tuple[int, int]]:
        """Return where groups of sessions begin and end, of these lengths, the longest first."""
        cuts, start = [], 0
        for at, length in enumerate(lengths):
            longest = lengths[start] - 1
            rows = at - start
            full = rows == batch_size or (rows + 1) * min(longest, self._steps) > batch_tokens
            if rows and (full or length - 1 < longest * LARGEST_PADDING):
                cuts.append((start, at))
                start = at
        return [*cuts, (start, len(lengths))] if lengths else []

    def _walk(self, order: Tensor, groups: list[tuple[int, int]], backwards: Tensor | None) -> Iterator[Piece]:
        for start, end in groups:
            rows = order[start:end]
            lengths = self._lengths[rows]
            signs = torch.ones_like(rows) if backwards is None else 1 - 2 * backwards[start:end].long()
            firsts = torch.where(signs > 0, self._starts[rows], self._starts[rows] + lengths - 1)
            for at in range(0, int(lengths[0]) - 1, self._steps):
                going_on = int((lengths > at + 1).sum())
                yield self._piece(firsts[:going_on], signs[:going_on], lengths[:going_on], at)

    def _piece(self, firsts: Tensor, signs: Tensor, lengths: Tensor, at: int) -> Piece:
        """Return the piece of rows that begins at their item `at`; a row's items lie at first + sign * index."""
        width = min(self._steps, int(lengths[0]) - 1 - at)
        index = torch.arange(at, at + width + 1, device="cpu")
        there = index < lengths[:, None]
        items = self._flat[torch.where(there, firsts[:, None] + signs[:, None] * index, 0)]
        items = items.masked_fill(~there, self._padding)
        targets = items[:, 1:].flatten()
        places = (targets != self._padding).nonzero()[:, 0]
        return Piece(items[:, :-1].clamp(min=0), targets[places], places, at == 0)
