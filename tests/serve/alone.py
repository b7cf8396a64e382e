"""The reference of the fuzzes: the same engine, stepping one session's items alone, one row a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from arraylstm_serve.arena import Arena
from arraylstm_serve.bundle import Bundle

from .bundles import V, index_of
from .harness import Engine

Facts = tuple[list[tuple[Any, float]], list[tuple[float | None, int | None]]]


class Alone:
    """What the engine gives a session whose items run at batch 1, with nothing beside them."""

    def __init__(self, bundle: Bundle) -> None:
        self.arena = Arena(Engine(bundle, 1), 1)
        self.labels = bundle.vocabulary.labels

    def walk(self, chunks: Sequence[Sequence[Any]]) -> list[Facts]:
        """A session's answers to some requests, one after the other: all predictions, and what it had thought."""
        slot = self.arena.acquire()
        answers: list[Facts] = []
        for chunk in chunks:
            seen = []
            for item in chunk:
                (thought,), (sound,), _ = self.arena.step([slot], [index_of(item)], [0])
                assert sound
                seen.append(thought)
            (ranking,) = self.arena.rank([slot], V)
            labels = [self.labels[index] for index in ranking.ids]
            answers.append((list(zip(labels, ranking.probabilities, strict=True)), seen))
        self.arena.release(slot)
        return answers

    def tensors(self, items: Sequence[Any]) -> dict[str, Any]:
        """The tensors that a session's state has after some items."""
        slot = self.arena.acquire()
        for item in items:
            self.arena.step([slot], [index_of(item)], [0])
        tensors = self.arena.engine.read(np.array([slot]))
        self.arena.release(slot)
        return {name: value[0] for name, value in tensors.items()}
