"""Write the answers that clients of /v1 read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from arraylstm_serve.api.schemas import (
    Observation,
    PredictAnswer,
    Prediction,
    SessionAnswer,
    SessionInfo,
    encode,
)
from arraylstm_serve.engine.ranking import Ranking
from arraylstm_serve.sessions.commands import Outcome
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.session import Session


def render_session(model: Model, outcome: Outcome) -> bytes:
    """Return an encoded SessionAnswer."""
    return encode(
        SessionAnswer(
            outcome.session_id,
            outcome.step,
            outcome.state,
            model.fingerprint,
            _predictions(model, outcome),
            _observed(outcome),
        )
    )


def render_prediction(model: Model, outcome: Outcome) -> bytes:
    """Return an encoded PredictAnswer."""
    predictions = _predictions(model, outcome)
    return encode(PredictAnswer(model.fingerprint, predictions, _observed(outcome)))


def render_info(session_id: str, session: Session, ttl: float) -> bytes:
    """Return an encoded SessionInfo of a session that expires after `ttl` seconds without use."""
    return encode(
        SessionInfo(
            session_id=session_id,
            step=session.step,
            model=session.model,
            created_at=_time(session.created),
            last_used_at=_time(session.last_used),
            expires_at=_time(session.last_used + ttl),
            recent=list(session.recent),
        )
    )


def write_predictions(model: Model, ranking: Ranking) -> bytes:
    """Return predictions as the elements of a JSON array, without its brackets; see `predictions.Write`."""
    return encode(_listed(model, ranking))[1:-1]


def _predictions(model: Model, outcome: Outcome) -> list[Prediction]:
    if outcome.written is not None:
        return cast("list[Prediction]", outcome.written)  # it is written as it is
    return _listed(model, outcome.predictions)


def _listed(model: Model, ranking: Ranking) -> list[Prediction]:
    labels = model.bundle.vocabulary.labels
    return list(map(Prediction, map(labels.__getitem__, ranking.ids), ranking.probabilities))


def _observed(outcome: Outcome) -> list[Observation]:
    observed = [Observation(item, *pair) for item, pair in zip(outcome.items, outcome.observed, strict=True)]
    for place in outcome.unlisted:
        observed[place].unknown = True
    return observed


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
