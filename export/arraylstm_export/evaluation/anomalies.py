"""Scores of events and sessions, and the threshold above which a session is an anomaly.

The score of an event is its rank, its surprise in nats, or the product of both; that of a session is the highest of its
events. An item that the model does not know has the last rank.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from arraylstm.metrics import NOWHERE
from arraylstm_export.arrays import Array
from arraylstm_export.errors import ExportError
from arraylstm_export.evaluation.measure import SCORES, WINDOW, judged
from arraylstm_export.evaluation.served import Served
from arraylstm_export.evaluation.sessions import NO_ID, ROWS, Batch, Window, batches

Score = Literal["rank", "surprise", "both"]


@dataclass(frozen=True)
class Events:
    """What a session's events score.

    Attributes:
        ranks: (S,) float64, NaN where nothing was predicted, as for the first item.
        nats: (S,) float64, the surprise; NaN where nothing was predicted.
    """

    ranks: Array
    nats: Array

    def highest(self, score: Score) -> float:
        """Return the session's score; 0 if nothing was predicted."""
        values = {"rank": self.ranks, "surprise": self.nats, "both": self.ranks * self.nats}[score]
        known = values[~np.isnan(values)]
        return float(known.max()) if len(known) else 0.0


def score_events(served: Served, sessions: Sequence[Array]) -> list[Events]:
    """Return what the events of each session score; sessions are ids (S) int64, NO_ID for an item that is left out."""
    unknown = served.vocabulary.unknown_id
    last = served.num_items + (unknown is None)
    scored = [_without_predictions(session, last) for session in sessions]
    if not any(len(session) > 1 for session in sessions):
        return scored
    for batch in batches(sessions, min(ROWS, max(1, SCORES // served.num_items))):
        for window in batch.windows(WINDOW):
            _score_window(served, batch, window, scored, last)
    return scored


def _without_predictions(session: Array, last: int) -> Events:
    """Return the scores before anything is predicted: an item that is left out has the last rank everywhere."""
    left_out = session == NO_ID
    return Events(np.where(left_out, float(last), math.nan), np.where(left_out, math.inf, math.nan))


def _score_window(served: Served, batch: Batch, window: Window, scored: list[Events], last: int) -> None:
    for _, part, made in judged(served, batch, window, unknown=served.vocabulary.unknown_id, length=1):
        ranks = torch.where(made.ranks == NOWHERE, last, made.ranks).double().tolist()
        for row, event, rank, nats in zip(part.rows, part.events, ranks, made.nats.tolist(), strict=True):
            events = scored[batch.numbers[row]]
            events.ranks[event] = rank
            if not math.isnan(nats):
                events.nats[event] = nats


@dataclass(frozen=True)
class Threshold:
    """Above which score a session is an anomaly.

    Attributes:
        score: what is compared: "rank", "surprise", or "both", their product.
        threshold: a session with a higher score is an anomaly.
        false_alarms: the share of normal sessions that may be taken for anomalies.
        normal_sessions: how many normal sessions it was chosen from.
        session_end: the item that ends every session; None if there is none.
        session_start: the item that begins every session; None if there is none.
    """

    score: Score
    threshold: float
    false_alarms: float
    normal_sessions: int
    session_end: str | None
    session_start: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return what a bundle's manifest keeps of it."""
        return asdict(self)


def choose(normal: Array, false_alarms: float) -> float:
    """Return the lowest threshold above which at most that share of normal sessions' scores (N,) is.

    Raises:
        ExportError: there are no scores, or the share allows no threshold, as items unknown to the model are too many.
    """
    if not len(normal):
        raise ExportError("there are no normal sessions to choose a threshold from")
    threshold = float(np.sort(normal)[::-1][min(len(normal) - 1, math.floor(false_alarms * len(normal)))])
    if math.isinf(threshold):
        raise ExportError(
            f"more than {false_alarms:.2%} of the normal sessions have items that the model does not know, "
            "so no surprise tells them from anomalies: take --score rank, or train on more sessions"
        )
    return threshold


def expected_alarms(normal: Array, false_alarms: float) -> int:
    """Return how many normal sessions are above a threshold that was chosen without them: on the other half of all."""
    halves = normal[::2], normal[1::2]
    if not len(halves[1]):
        return 0
    return sum(int((judged > choose(used, false_alarms)).sum()) for used, judged in (halves, halves[::-1]))


@dataclass(frozen=True)
class Detection:
    """How well a threshold tells anomalies from normal sessions.

    Attributes:
        found: anomalies above the threshold.
        missed: anomalies that are not.
        false_alarms: normal sessions above the threshold.
        passed: normal sessions that are not.
    """

    found: int
    missed: int
    false_alarms: int
    passed: int

    @classmethod
    def of(cls, scores: Array, anomalous: Array, threshold: float) -> "Detection":
        """Count sessions with scores (N,), of which some are known to be anomalies (N,) bool."""
        above = scores > threshold
        counts = (above & anomalous, ~above & anomalous, above & ~anomalous, ~above & ~anomalous)
        return cls(*(int(count.sum()) for count in counts))

    def with_normal(self, sessions: int, alarms: int) -> "Detection":
        """Return these counts with further normal sessions, so many of them above the threshold."""
        return replace(self, false_alarms=self.false_alarms + alarms, passed=self.passed + sessions - alarms)

    def figures(self) -> dict[str, float]:
        """Return the counts, precision, recall and F1."""
        precision = self.found / max(1, self.found + self.false_alarms)
        recall = self.found / max(1, self.found + self.missed)
        f1 = 2 * self.found / max(1, 2 * self.found + self.missed + self.false_alarms)
        return {**asdict(self), "precision": precision, "recall": recall, "f1": f1}


@dataclass(frozen=True)
class Curves:
    """What every threshold would give.

    Attributes:
        false_alarms: (T,) share of normal sessions above each threshold, from the highest threshold to the lowest.
        recall: (T,) share of anomalies above it.
        precision: (T,) share of anomalies among the sessions above it.
    """

    false_alarms: Array
    recall: Array
    precision: Array

    @classmethod
    def of(cls, scores: Array, anomalous: Array) -> "Curves":
        """Return the curves of sessions with scores (N,), of which some are anomalies (N,) bool, and some are not."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        found, alarms = np.cumsum(anomalous[order])[last], np.cumsum(~anomalous[order])[last]
        return cls(alarms / (~anomalous).sum(), found / anomalous.sum(), found / (found + alarms))

    def figures(self) -> dict[str, float]:
        """Return the area under the ROC curve, and the average precision."""
        area = np.trapezoid(np.concatenate([[0.0], self.recall]), np.concatenate([[0.0], self.false_alarms]))
        steps = np.diff(self.recall, prepend=0.0)
        return {"roc_auc": float(area), "average_precision": float((steps * self.precision).sum())}
