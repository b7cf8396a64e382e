"""The reference for the fuzz tests: the host's engine steps one session's items alone, one row in each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Step
from arraylstm_serve.engine.batcher import UNPREDICTED
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

from ..devices import Chosen
from .bundles import V, index_of

SLOT = 1

Likely = list[tuple[Any, float]]
Observed = list[tuple[float | None, int | None]]
Facts = tuple[Likely, Observed]


def same_likely(found: Likely, expected: Likely) -> bool:
    """Return whether predictions are as expected: the same bits on the host's engine, within 1e-5 on a device's."""
    if Chosen.engine == "host":
        return found == expected
    return dict(found) == pytest.approx(dict(expected), abs=1e-5)


def same_observed(found: Observed, expected: Observed) -> bool:
    """Return whether observations are as expected: the same bits on the host's engine, within 1e-5 on a device's.

    On a device's engine, ranks may differ by one, as items may be nearly equally likely.
    """
    if Chosen.engine == "host":
        return found == expected
    return len(found) == len(expected) and all(
        (one == other)
        if other == (None, None)
        else (one[0] == pytest.approx(other[0], abs=1e-5) and one[1] == pytest.approx(other[1], abs=1))
        for one, other in zip(found, expected, strict=True)
    )


def same(found: Facts, expected: Facts) -> bool:
    """Return whether an answer is as expected."""
    return same_likely(found[0], expected[0]) and same_observed(found[1], expected[1])


class Alone:
    """The answers that the host's engine gives a session whose items run at batch 1, without other sessions."""

    def __init__(self, bundle: Bundle) -> None:
        self.engine = open_engine(bundle, Settings(device="cpu"), 2)
        self.labels = bundle.vocabulary.labels

    def walk(self, chunks: Sequence[Sequence[Any]]) -> list[Facts]:
        """Return a session's answers to requests, one after the other: all predictions, and all observations."""
        answers: list[Facts] = []
        source = INITIAL
        for chunk in chunks:
            observed: Observed = []
            for item in chunk:
                step = self.step(source, item)
                assert step.finite.all()
                found = step.probabilities.item(), step.ranks.item()
                observed.append(UNPREDICTED if source == INITIAL else found)
                source = SLOT
            (ranking,) = self.engine.rank(np.array([source]), V)
            labels = [self.labels[index] for index in ranking.ids]
            answers.append((list(zip(labels, ranking.probabilities, strict=True)), observed))
        return answers

    def step(self, source: int, item: Any) -> Step:
        """Step the session by one item."""
        return self.engine.step(np.array([source]), np.array([SLOT]), np.array([index_of(item)]), [0])

    def tensors(self, items: Sequence[Any]) -> dict[str, Any]:
        """Return the tensors of a session's state after some items."""
        source = INITIAL
        for item in items:
            self.step(source, item)
            source = SLOT
        tensors = self.engine.read(np.array([source]))
        return {name: value[0] for name, value in tensors.items()}
