"""From what the model says to what a client reads."""

from __future__ import annotations

from collections.abc import Sequence

from arraylstm_serve.api.schemas import Item, Observation, PredictAnswer, Prediction, SessionAnswer, encode
from arraylstm_serve.engine.ranking import Ask, Ranking
from arraylstm_serve.engine.slots import Seen
from arraylstm_serve.sessions.commands import Outcome


class Renderer:
    """Writes answers in the words of one model.

    Args:
        fingerprint: the model's.
        labels: the label of each item id.
    """

    def __init__(self, fingerprint: str, labels: Sequence[Item]) -> None:
        self._fingerprint = fingerprint
        self._label = labels.__getitem__

    def session(self, session_id: str, items: Sequence[Item], ask: Ask, outcome: Outcome) -> bytes:
        """An encoded SessionAnswer."""
        return encode(
            SessionAnswer(
                session_id,
                outcome.step,
                outcome.state,
                self._fingerprint,
                self._predictions(ask, outcome.ranking),
                _observed(items, outcome.seen),
            )
        )

    def prediction(self, items: Sequence[Item], ask: Ask, outcome: Outcome) -> bytes:
        """An encoded PredictAnswer."""
        predictions = self._predictions(ask, outcome.ranking)
        return encode(PredictAnswer(self._fingerprint, predictions, _observed(items, outcome.seen)))

    def _predictions(self, ask: Ask, ranking: Ranking) -> list[Prediction]:
        ids, probabilities = ask.choose(ranking)
        return list(map(Prediction, map(self._label, ids), probabilities))


def _observed(items: Sequence[Item], seen: Sequence[Seen]) -> list[Observation]:
    return [Observation(item, *thought) for item, thought in zip(items, seen, strict=True)]
