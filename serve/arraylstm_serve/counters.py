"""The server's own counters: plain numbers, increased where things happen, read by /metrics and /v1/stats.

prometheus_client writes them out, but does not count them: its counters and histograms would take 3 us more for an
event, which takes 60 to 100 us in all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

OK = "ok"
"""The outcome of an event that is not refused."""

NO_ROUTE = "none"
"""The route of requests that are refused before routing."""

Eviction = Literal["expired", "room", "answers"]
Changing = Literal["events", "restored"]
"""What changes a session and is counted: requests that advance it, and states that clients give to it."""


class Histogram:
    """Counts values in buckets. Each bucket but the last has an upper bound.

    Attributes:
        bounds: the upper bounds, inclusive, in rising order.
        counts: (len(bounds) + 1) how many values are in each bucket, not counting those in lower ones.
        total: the sum of the values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)


def _durations() -> Histogram:
    return Histogram(SECONDS)


def _observe(histograms: dict[str, Histogram], name: str, seconds: float) -> None:
    """Count a duration under a name; the first one makes the histogram."""
    histogram = histograms.get(name)
    if histogram is None:
        histogram = histograms[name] = _durations()
    histogram.observe(seconds)


@dataclass(slots=True)
class Counters:
    """The counters of one server process. Only `streams` can fall.

    Attributes:
        requests: HTTP requests answered, by route and status.
        durations: seconds from a request's head to its answer, by route.
        streams: WebSocket connections open.
        outcomes: seconds from each event's arrival to its outcome, by outcome: `ok`, or the code of its refusal. An
            event counts here whether it came in a request of its own, in a bulk request or over a stream. The events of
            a bulk request arrive together.
        batch_rows: sessions stepped by each run of the model.
        run_seconds: seconds of each run of the model, including the reading, ranking and storing of rows.
        queue_seconds: seconds from each walk's request to its first step.
        evicted: sessions that the server closed by itself, by reason.
        changes: changes of sessions, by what made them.
        unknown_items: items of answered requests that the model has no label for.
        replays: remembered answers sent again for a repeated idempotency key.
        conflicts: requests refused because of their expected_step.
        rewound: sessions of which the store had lost acknowledged steps.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    durations: dict[str, Histogram] = field(default_factory=dict)
    streams: int = 0
    outcomes: dict[str, Histogram] = field(default_factory=dict)
    batch_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    run_seconds: Histogram = field(default_factory=_durations)
    queue_seconds: Histogram = field(default_factory=_durations)
    evicted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(get_args(Eviction), 0))
    changes: dict[Changing, int] = field(default_factory=lambda: dict.fromkeys(get_args(Changing), 0))
    unknown_items: int = 0
    replays: int = 0
    conflicts: int = 0
    rewound: int = 0

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        self.requests[route, status] += 1
        _observe(self.durations, route, seconds)

    def event(self, outcome: str, seconds: float) -> None:
        """Count an event that is answered, or refused with a code."""
        _observe(self.outcomes, outcome, seconds)

    def refused(self, status: int) -> None:
        """Count a refusal that the application does not see."""
        self.requests[NO_ROUTE, status] += 1
