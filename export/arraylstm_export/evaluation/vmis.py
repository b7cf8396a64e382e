"""VMIS-kNN: what the most similar recent sessions hold (Kersbergen, Sprangers and Schelter, SIGMOD 2022)."""

from dataclasses import dataclass

import numpy as np

from arraylstm_export.arrays import Array
from arraylstm_export.evaluation.baselines import Baseline, Training, without_zeros
from arraylstm_export.evaluation.sessions import Batch, Window
from arraylstm_export.evaluation.table import Table


@dataclass(frozen=True)
class Sizes:
    """How far VMIS-kNN looks; the published names in brackets."""

    sessions: int = 500
    """The most recent sessions with an item that are looked at (m)."""
    neighbours: int = 100
    """How many of the most similar sessions count (k)."""
    items: int = 4
    """How many of a session's last items are looked at."""


class VMISKNN(Baseline):
    """VMIS-kNN of one session s with items at the places 1 to |s|, the current one last.

    A session n of the past is as similar as the sum of the places of s whose items it has, over |s|. Of those with the
    latest m sessions of each item, the k most similar ones are the neighbours. An item scores, over the neighbours with
    it, the sum of similarity times max(0, 1 - 0.1 p) times log(|H| / h): p counts back from the current item, at 1, to
    the last item of s that the neighbour has; h of |H| sessions have the item.

    Args:
        training: the sessions of the past.
        sizes: how far to look.
    """

    name = "VMIS-kNN"

    def __init__(self, training: Training, sizes: Sizes = Sizes()) -> None:
        self.num_items, self._sizes = training.num_items, sizes
        ones = np.ones(len(training.items))
        self._held = Table(training.sessions, training.items, ones, max(1, training.count), self.num_items)
        self._sessions = Table(training.items, training.sessions, ones, self.num_items, max(1, training.count))
        holders = self._sessions.sizes
        self._rarity = np.log(max(1, training.count) / np.maximum(1, holders)) + 1e-9
        self._popularity = (training.counts / (1 + training.counts.max(initial=0)) * 1e-6).astype(np.float32)

    def scores(self, batch: Batch, window: Window) -> Array:
        """See `Baseline.scores`."""
        found = np.zeros((len(window), self.num_items), np.float32)
        first = batch.starts[window.rows]
        for place, (start, end) in enumerate(zip(first, first + window.ends, strict=True)):
            self._score(batch.items[start : end + 1][-self._sizes.items :], found[place])
        return without_zeros(found, self._popularity)

    def _score(self, session: Array, found: Array) -> None:
        """Add the scores (V,) after a session's last items."""
        neighbours, similarities = self._neighbours(session)
        if not len(neighbours):
            return
        where, owners = self._held.entries(neighbours)
        held = self._held.columns[where]
        back = np.full(self.num_items, len(session) + 1)
        back[session] = np.arange(len(session), 0, -1)
        nearest = np.full(len(neighbours), len(session) + 1)
        np.minimum.at(nearest, owners, back[held])
        weights = similarities * np.maximum(0.0, 1 - 0.1 * nearest)
        found += np.bincount(held, weights[owners] * self._rarity[held], minlength=self.num_items).astype(np.float32)

    def _neighbours(self, session: Array) -> tuple[Array, Array]:
        """Return the most similar sessions, and how similar they are."""
        recent, weights = [], []
        seen: set[int] = set()
        for place in range(len(session), 0, -1):
            item = int(session[place - 1])
            if item in seen:
                continue
            seen.add(item)
            holders = self._sessions.columns[self._sessions.starts[item] : self._sessions.starts[item + 1]]
            recent.append(holders[-self._sizes.sessions :])
            weights.append(np.full(len(recent[-1]), place / len(session)))
        sessions, inverse = np.unique(np.concatenate(recent), return_inverse=True)
        similarities = np.bincount(inverse, np.concatenate(weights), minlength=len(sessions))
        latest = np.argsort(-sessions)[: self._sizes.sessions]  # of all that are looked at, too, the latest m
        sessions, similarities = sessions[latest], similarities[latest]
        best = np.argsort(-similarities, kind="stable")[: self._sizes.neighbours]
        return sessions[best], similarities[best]
