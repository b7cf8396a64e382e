"""A served model: everything that belongs to one bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from arraylstm_serve.api.problems import INVALID_REQUEST, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.arrays import Floats
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.bundle.vocabulary import Vocabulary
from arraylstm_serve.counters import Counters
from arraylstm_serve.engine.base import LOGITS, Engine
from arraylstm_serve.engine.batcher import Batcher, Walk
from arraylstm_serve.engine.ranking import Ranking, Selection
from arraylstm_serve.engine.slots import Slots
from arraylstm_serve.settings import Settings

BATCH_LOGITS = 1_000_000
"""The most logits of a batch: with many items fewer sessions are stepped at once, so that a batch is soon over."""


class Model:
    """A bundle with the engine that runs it, the engine's slots, a batcher and the vocabulary.

    Args:
        bundle: the model, verified.
        engine: an engine with `slot_count(settings)` rows.
        settings: the bounds.
        counters: they count the runs of the model.
        finished: called with walks that have ended; see `Batcher`.

    Attributes:
        fingerprint: the model's fingerprint.
        vocabulary: the items that the model accepts.
        slots: hands out the engine's rows.
        batcher: steps walks on those rows.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        settings: Settings,
        counters: Counters,
        finished: Callable[[Sequence[Walk]], None],
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.fingerprint = bundle.fingerprint
        self.vocabulary = accepted(bundle, settings)
        self.slots = Slots(slot_count(settings))
        most = min(settings.max_batch, max(1, BATCH_LOGITS // len(self.vocabulary)))
        self.batcher = Batcher(engine, counters, most, finished)
        self._max_items = settings.max_items
        unknown = self.vocabulary.unknown
        self._never = frozenset(() if unknown is None else (unknown,))
        """The ids of items that are never predicted."""
        self._plain_selection = lru_cache(64)(self._selection)

    def check_count(self, count: int) -> None:
        """Raise Problem `invalid_request` if a request carries more items than are allowed."""
        if count > self._max_items:
            raise Problem(INVALID_REQUEST, f"The request carries {count} items; at most {self._max_items} are allowed.")

    def encode(self, items: Sequence[Item]) -> list[int]:
        """Return the ids of a request's items, without those that the policy for unknown items leaves out.

        Raises:
            Problem: `invalid_request`: there are too many items; `unknown_item`: the model does not accept an item.
        """
        self.check_count(len(items))
        return self.vocabulary.encode(items)

    def selection(self, top_k: int, exclude: Sequence[Item] = ()) -> Selection:
        """Return which predictions to rank for a request.

        Raises:
            Problem: `unknown_item`: the model has no item that is to be excluded.
        """
        if not exclude:
            return self._plain_selection(top_k)
        return self._selection(top_k, frozenset(self.vocabulary.encode_known(exclude)))

    def _selection(self, top_k: int, exclude: frozenset[int] = frozenset()) -> Selection:
        return Selection.of(top_k, len(self.vocabulary), exclude | self._never)

    def rank(self, slot: int, depth: int) -> Ranking:
        """Return the `depth` most likely next items of a slot."""
        (ranking,) = self.engine.rank(np.array([slot]), depth)
        return ranking

    def logits(self, slot: int) -> Floats:
        """Return the logits (V,) of a slot's last step."""
        return self.read(slot)[LOGITS]

    def read(self, slot: int) -> dict[str, Floats]:
        """Return the tensors of a slot, by name."""
        return {name: values[0] for name, values in self.engine.read(np.array([slot])).items()}

    def write(self, slot: int, tensors: dict[str, Floats]) -> None:
        """Store tensors, by name, in a slot."""
        self.engine.write(np.array([slot]), {name: values[None] for name, values in tensors.items()})


def accepted(bundle: Bundle, settings: Settings) -> Vocabulary:
    """Return the items that a bundle's model accepts under these settings."""
    return bundle.vocabulary.under(settings.unknown_items)


def slot_count(settings: Settings) -> int:
    """Return how many slots the bounds need: the initial one, one for each session, and two for each pending request.

    A pending request needs one slot to walk to. It may also keep a session busy beyond `max_sessions`, which needs one.
    """
    return 1 + settings.max_sessions + 2 * settings.max_pending
