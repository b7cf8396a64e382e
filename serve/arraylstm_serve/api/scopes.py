"""Scopes: how much an API key allows."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """How much an API key allows. Each scope allows what the one before it does, and more."""

    METRICS = "metrics"
    READ_ONLY = "read-only"
    EVERYTHING = "everything"

    def covers(self, needed: Scope) -> bool:
        """Whether a key of this scope may do what needs at least another scope."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS = {scope: rank for rank, scope in enumerate(Scope)}

ALLOWED = {
    Scope.METRICS: "GET /metrics and GET /v1/stats",
    Scope.READ_ONLY: (
        "what changes nothing: every GET but /v1/stream (sessions, their predictions and states, the model, its items, "
        "/v1/stats, /metrics, /v2), and POST /v1/predict"
    ),
    Scope.EVERYTHING: "everything",
}
"""What a key of each scope may ask for, in words."""
