"""What a model has to beat: predictors that count, fitted on the spot."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from arraylstm_export.arrays import Array
from arraylstm_export.evaluation.served import Chunk
from arraylstm_export.evaluation.sessions import NO_ID, Batch, Window
from arraylstm_export.evaluation.table import Table

SCORES = 2**22
"""How many scores are held at once, unless one prediction has more."""


class Training:
    """The sessions that baselines are fitted on, one after the other; a later one counts as more recent.

    Attributes:
        items: (M,) int64 ids of all events.
        sessions: (M,) int64, the session of each.
        starts: (M,) int64, where the session of each begins.
        counts: (V,) how often each item occurs.
    """

    def __init__(self, sessions: Sequence[Array], num_items: int) -> None:
        kept = [session[session != NO_ID] for session in sessions]
        kept = [session for session in kept if len(session)]
        lengths = np.array(list(map(len, kept)), np.int64)
        self.num_items = num_items
        self.count = len(kept)
        self.items: Array = np.concatenate([*kept, np.zeros(0, np.int64)]).astype(np.int64)
        self.sessions: Array = np.repeat(np.arange(len(kept)), lengths)
        self.starts: Array = np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.counts: Array = np.bincount(self.items, minlength=num_items)

    @property
    def followed(self) -> Array:
        """The places of the events that another one of their session follows."""
        return np.flatnonzero(self.sessions[1:] == self.sessions[:-1])


class Baseline(ABC):
    """Scores the next item of sessions; the higher the likelier, NaN for an item that it does not recommend.

    Attributes:
        name: what tables call it.
        gives_probabilities: whether the scores are logarithms of probabilities.
    """

    name: str
    gives_probabilities = False
    num_items: int

    @abstractmethod
    def scores(self, batch: Batch, window: Window) -> Array:
        """Return the scores (N, V) of a window's predictions."""

    def chunks(self, batch: Batch, window: Window) -> Iterator[Chunk]:
        """Yield the scores of a window's predictions, in pieces of bounded size."""
        size = max(1, SCORES // self.num_items)
        for start in range(0, len(window), size):
            chosen = slice(start, min(start + size, len(window)))
            scores = torch.from_numpy(self.scores(batch, window.part(chosen)))
            yield chosen, scores, self._log_sums(len(scores))

    def _log_sums(self, count: int) -> Tensor | None:
        return torch.zeros(count, dtype=torch.float64) if self.gives_probabilities else None


class NGram(Baseline):
    """The items that followed the last `order` items, backing off to shorter contexts (Witten and Bell 1991).

    p_n(w) = (c_n(w) + T_n p_{n-1}(w)) / (C_n + T_n), where c_n counts what followed the last n items, C_n is the sum of
    these counts and T_n the number of different items among them. p_0 is how often an item occurs, plus one.

    Args:
        training: what to count.
        order: the most items of a context; 0 is popularity, 1 a bigram.
        name: what tables call it.
    """

    gives_probabilities = True

    def __init__(self, training: Training, order: int, name: str) -> None:
        self.name, self.num_items = name, training.num_items
        self._popularity = ((training.counts + 1) / (training.counts + 1).sum()).astype(np.float32)
        self._levels: list[tuple[Array, Table]] = []
        places = training.followed
        nodes = np.zeros(len(places), np.int64)
        for length in range(1, order + 1):
            inside = places - length + 1 >= training.starts[places]
            places, nodes = places[inside], nodes[inside]
            if not len(places):
                break
            keys, nodes = np.unique(nodes * self.num_items + training.items[places - length + 1], return_inverse=True)
            followers = Table(nodes, training.items[places + 1], np.ones(len(places)), len(keys), self.num_items)
            self._levels.append((keys, followers))

    def scores(self, batch: Batch, window: Window) -> Array:
        """See `Baseline.scores`."""
        found = np.tile(self._popularity, (len(window), 1))
        first, at = batch.starts[window.rows], batch.starts[window.rows] + window.ends
        places, nodes = np.arange(len(window)), np.zeros(len(window), np.int64)
        for back, (keys, followers) in enumerate(self._levels):
            inside = at[places] - back >= first[places]
            places, nodes = places[inside], nodes[inside]
            wanted = nodes * self.num_items + batch.items[at[places] - back]
            nodes = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = keys[nodes] == wanted
            places, nodes = places[known], nodes[known]
            if not len(places):
                break
            kinds, counts = followers.sizes[nodes], followers.sums()[nodes]
            found[places] *= (kinds / (counts + kinds))[:, None].astype(np.float32)
            followers.add_to(found, places, nodes, 1 / (counts + kinds))
        scores: Array = np.log(found)
        return scores


class Neighbours(Baseline):
    """The items that stood beside the session's items in either order, the nearest and the latest counting most.

    Two items d apart in a session count 1/d for each other. What an item counts for others is divided by the square
    root of its sum. A session's items weigh half as much with every step back.

    Args:
        training: what to count.
        reach: the largest d.
        decay: what a step back leaves of an item's weight.
    """

    name = "symmetric bigram"

    def __init__(self, training: Training, reach: int = 10, decay: float = 0.5) -> None:
        self.num_items, self._reach, self._decay = training.num_items, reach, decay
        self._popularity = (training.counts / (1 + training.counts.max(initial=0)) * 1e-6).astype(np.float32)
        pairs = [self._pairs(training, distance) for distance in range(1, reach + 1)]
        rows, columns, values = (np.concatenate(each) for each in zip(*pairs, strict=True))
        sums = np.bincount(rows, values, minlength=self.num_items)
        self._table = Table(rows, columns, values / np.sqrt(sums[rows]), self.num_items, self.num_items)

    def _pairs(self, training: Training, distance: int) -> tuple[Array, Array, Array]:
        places = np.flatnonzero(training.sessions[distance:] == training.sessions[:-distance])
        one, other = training.items[places], training.items[places + distance]
        differ = one != other
        one, other = one[differ], other[differ]
        rows, columns = np.concatenate([one, other]), np.concatenate([other, one])
        return rows, columns, np.full(len(rows), 1 / distance)

    def scores(self, batch: Batch, window: Window) -> Array:
        """See `Baseline.scores`."""
        found = np.zeros((len(window), self.num_items), np.float32)
        first, at = batch.starts[window.rows], batch.starts[window.rows] + window.ends
        for back in range(self._reach):
            places = np.flatnonzero(at - back >= first)
            if not len(places):
                break
            self._table.add_to(found, places, batch.items[at[places] - back], np.full(len(places), self._decay**back))
        return without_zeros(found, self._popularity)


def without_zeros(found: Array, popularity: Array) -> Array:
    """Return scores with NaN in place of 0, and items of equal score in the order of their popularity."""
    return np.where(found > 0, found * (1 + popularity), np.float32(np.nan))
