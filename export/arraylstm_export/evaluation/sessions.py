"""Sessions as a bundle's graph takes them: ids, and what each of them predicts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from arraylstm import UnknownItemError, Vocabulary
from arraylstm.vocabulary import Label
from arraylstm_export.arrays import Array
from arraylstm_export.errors import ExportError

Policy = Literal["model", "reject", "skip"]
NO_ID = -1
"""Stands for an item that the vocabulary does not list, where such items are left out."""

_DIGITS = len(str(-(2**63))) + 1
"""Longer texts spell no integer that may be a label."""

ROWS, EVENTS = 256, 2**20
"""The most sessions of a batch, and the most items, unless one session has more."""


class Encoder:
    """Turns labels into ids.

    The integer 5 and the text "5" mean the same item if only one of them is a label, as for a server.

    Args:
        vocabulary: a bundle's labels.
        policy: what becomes of an item that is not listed; see `arraylstm-serve --unknown-items`.
    """

    def __init__(self, vocabulary: Vocabulary, policy: Policy = "model") -> None:
        self._ids: dict[Label, int] = {label: id for id, label in enumerate(vocabulary.labels)}
        for label, id in list(self._ids.items()):
            self._ids.setdefault(_twin(label), id)
        self._vocabulary, self._policy = vocabulary, policy
        self._other = {"model": vocabulary.unknown_id, "reject": None, "skip": NO_ID}[policy]

    def __call__(self, session: Sequence[Label]) -> Array:
        """Return the ids (S,) int64 of a session's items; NO_ID for one that is left out.

        Raises:
            UnknownItemError: an item is not listed and there is nothing to take it for.
        """
        try:
            return np.array([self._ids[label] for label in session], np.int64)
        except KeyError:
            return np.array([self._id(label) for label in session], np.int64)

    def _id(self, label: Label) -> int:
        found = self._ids.get(label, self._other)
        if found is None:
            some = ", ".join(map(repr, self._vocabulary.labels[:5]))
            raise UnknownItemError(
                f"unknown item {label!r}; the model has {len(self._vocabulary)} items, such as {some}. "
                "--unknown-items skip leaves such items out"
            )
        return found


def _twin(label: Label) -> Label:
    """Return the label of the other type that reads the same; the label itself if there is none."""
    if isinstance(label, int):
        return str(label)
    if label.removeprefix("-").isdecimal() and label.isascii() and str(int(label[:_DIGITS])) == label:
        return int(label)
    return label


@dataclass(frozen=True)
class Window:
    """Predictions of a batch, in the order of the steps that make them.

    Attributes:
        rows: (N,) int64, the session of each.
        ends: (N,) int64, the place of the current item among those that the session consumes.
        targets: (N,) int64, what followed; NO_ID for an item that is left out.
        events: (N,) int64, where in the session that stands.
    """

    rows: Array
    ends: Array
    targets: Array
    events: Array

    def __len__(self) -> int:
        """Return the number of predictions."""
        return len(self.rows)

    def part(self, chosen: slice) -> "Window":
        """Return some of the predictions."""
        return Window(self.rows[chosen], self.ends[chosen], self.targets[chosen], self.events[chosen])

    def steps(self) -> Iterator[tuple[int, slice]]:
        """Yield each place of a current item, with the predictions made there."""
        bounds = np.flatnonzero(np.diff(self.ends, prepend=-1))
        for first, after in zip(bounds, [*bounds[1:], len(self)], strict=True):
            yield int(self.ends[first]), slice(int(first), int(after))


class Batch:
    """Sessions that are predicted together, the longest first.

    Attributes:
        numbers: which sessions they are of all.
        sessions: the ids of each session, with NO_ID where an item is left out.
        items: all items that are consumed, session after session.
        starts: (B,) int64, where each session begins in `items`.
    """

    def __init__(self, numbers: Sequence[int], sessions: Sequence[Array]) -> None:
        self.numbers, self.sessions = numbers, sessions
        consumed = [session[session != NO_ID] for session in sessions]
        self.items: Array = np.concatenate(consumed)
        self.starts: Array = np.cumsum([0, *map(len, consumed[:-1])])

    @cached_property
    def predictions(self) -> Window:
        """All predictions: of every item that has one before it which is consumed."""
        rows, ends, targets, events = [], [], [], []
        for row, session in enumerate(self.sessions):
            before = np.cumsum(session != NO_ID) - (session != NO_ID) - 1
            predicted = np.flatnonzero(before >= 0)
            rows.append(np.full(len(predicted), row))
            ends.append(before[predicted])
            targets.append(session[predicted])
            events.append(predicted)
        order = np.argsort(np.concatenate(ends), kind="stable")
        return Window(*(np.concatenate(each)[order] for each in (rows, ends, targets, events)))

    def windows(self, size: int) -> Iterator[Window]:
        """Yield the predictions in windows of about `size`, no step cut in two."""
        everything = self.predictions
        start = 0
        while start < len(everything):
            after = min(start + size, len(everything)) - 1
            stop = int(np.searchsorted(everything.ends, everything.ends[after], side="right"))
            yield everything.part(slice(start, stop))
            start = stop

    def current(self, window: Window) -> Array:
        """Return the items (N,) that the sessions stand at."""
        items: Array = self.items[self.starts[window.rows] + window.ends]
        return items

    @cached_property
    def _last(self) -> tuple[Array, Array, list[Array]]:
        """Each session's different items as sorted pairs of row and id, where each stands last, and what is left."""
        width = 1 + max(int(session.max()) for session in self.sessions)
        keys, places, left = [], [], []
        for row, session in enumerate(self.sessions):
            backwards, last = np.unique(session[::-1], return_index=True)
            keys.append(row * (width + 1) + backwards + 1)
            places.append(len(session) - 1 - last)
            left.append(np.cumsum(np.bincount(places[-1], minlength=len(session))[::-1])[::-1])
        return np.concatenate(keys), np.concatenate(places), left

    def comes(self, window: Window, ids: Array) -> Array:
        """Return whether items (N, K) are among those that follow in their sessions; -1 is none."""
        width = 1 + max(int(session.max()) for session in self.sessions)
        keys, places, _ = self._last
        wanted = window.rows[:, None] * (width + 1) + ids + 1
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        there = (keys[found] == wanted) & (ids >= 0) & (ids < width)
        result: Array = there & (places[found] >= window.events[:, None])
        return result

    def rest(self, window: Window) -> Array:
        """Return how many different items (N,) follow."""
        _, _, left = self._last
        return np.array([left[row][event] for row, event in zip(window.rows, window.events, strict=True)])


def batches(sessions: Sequence[Array], rows: int) -> Iterator[Batch]:
    """Yield the sessions that have something to predict, of similar length together.

    Raises:
        ExportError: no session has a second item to predict.
    """
    kept = [number for number, session in enumerate(sessions) if _predicts(session)]
    if not kept:
        raise ExportError(f"none of {len(sessions)} sessions has a second item to predict")
    kept.sort(key=lambda number: -len(sessions[number]))
    while kept:
        count = max(1, min(rows, EVENTS // len(sessions[kept[0]])))
        yield Batch(kept[:count], [sessions[number] for number in kept[:count]])
        kept = kept[count:]


def _predicts(session: Array) -> bool:
    """Return whether an item follows the first one that is consumed."""
    consumed = np.flatnonzero(session != NO_ID)
    return len(consumed) > 0 and int(consumed[0]) < len(session) - 1
