"""The server's counters in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from arraylstm_serve import __version__
from arraylstm_serve.counters import Histogram
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.stores.base import CommitOutcome, LoadOutcome, StoreCounters

PREFIX = "arraylstm_"


class Metrics:
    """The metrics of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """Return the current metrics as text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics; see prometheus_client's Collector."""
        yield from self._requests()
        yield from self._model_runs()
        yield from self._sessions()
        yield from self._store()
        service = self._service
        yield InfoMetricFamily(f"{PREFIX}build", "The server.", {"version": __version__})
        facts = {
            "fingerprint": service.model.bundle.fingerprint,
            "cell": service.model.bundle.manifest.model.cell,
            "items": str(len(service.model.vocabulary)),
            "provider": service.model.engine.provider,
        }
        yield InfoMetricFamily(f"{PREFIX}model", "The model served.", facts)

    def _requests(self) -> Iterator[Metric]:
        counters = self._service.counters
        requests = CounterMetricFamily(
            f"{PREFIX}requests",
            "HTTP requests and WebSocket handshakes answered.",
            labels=("route", "code"),
        )
        for (route, status), count in counters.requests.items():
            requests.add_metric((route, str(status)), count)
        yield requests
        durations = HistogramMetricFamily(
            f"{PREFIX}request_duration_seconds", "From a request's head to its answer.", labels=("route",)
        )
        for route, histogram in counters.durations.items():
            durations.add_metric((route,), _buckets(histogram), histogram.total)
        yield durations
        yield from self._events()
        yield GaugeMetricFamily(f"{PREFIX}streams_active", "WebSocket connections open.", counters.streams)
        yield GaugeMetricFamily(f"{PREFIX}requests_pending", "Requests that wait or run.", self._service.pending)
        yield CounterMetricFamily(
            f"{PREFIX}idempotent_replays", "Answers given again for a repeated idempotency key.", counters.replays
        )
        yield CounterMetricFamily(
            f"{PREFIX}step_conflicts", "Requests refused for their expected_step.", counters.conflicts
        )

    def _events(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            f"{PREFIX}events", "Events answered or refused, by request, in bulk or over a stream.", labels=("outcome",)
        )
        durations = HistogramMetricFamily(
            f"{PREFIX}event_duration_seconds", "From an event's arrival to its outcome.", labels=("outcome",)
        )
        for outcome, histogram in self._service.counters.outcomes.items():
            events.add_metric((outcome,), histogram.count)
            durations.add_metric((outcome,), _buckets(histogram), histogram.total)
        yield events
        yield durations

    def _model_runs(self) -> Iterator[Metric]:
        counters = self._service.counters
        yield _histogram("batch_size", "Sessions stepped by one run of the model.", counters.batch_rows)
        yield _histogram("queue_wait_seconds", "From a request's head to its first run.", counters.queue_seconds)
        yield _histogram(
            "inference_duration_seconds", "One run of the model, with what is stored around it.", counters.run_seconds
        )

    def _sessions(self) -> Iterator[Metric]:
        service, counters = self._service, self._service.counters
        service.sessions.expire()
        yield GaugeMetricFamily(f"{PREFIX}sessions_active", "Sessions held.", len(service.sessions))
        yield GaugeMetricFamily(f"{PREFIX}sessions_limit", "Sessions held at most.", service.settings.max_sessions)
        yield GaugeMetricFamily(
            f"{PREFIX}remembered_answer_bytes",
            "Answers remembered for idempotency keys.",
            service.sessions.answer_bytes,
        )
        yield CounterMetricFamily(
            f"{PREFIX}session_events", "Requests that moved a session.", counters.changes["events"]
        )
        yield CounterMetricFamily(
            f"{PREFIX}unknown_items",
            "Items that the model has no label for; it took them as its unknown item, or they were left out.",
            counters.unknown_items,
        )
        yield CounterMetricFamily(f"{PREFIX}sessions_restored", "Sessions given a state.", counters.changes["restored"])
        yield self._gone()

    def _gone(self) -> Metric:
        """The sessions that the server let go by itself; where a store has them, they are not lost."""
        name, text = "evicted", "Sessions that the server closed by itself."
        if self._service.keeper is not None:
            name, text = "unloaded", "Sessions that left the memory; the store has them until they expire."
        return _counted(f"sessions_{name}", text, "reason", self._service.counters.evicted.items())

    def _store(self) -> Iterator[Metric]:
        """The store of sessions, if there is one."""
        keeper = self._service.keeper
        if keeper is None:
            return
        works = not self._service.fault
        yield GaugeMetricFamily(f"{PREFIX}store_up", "Whether the store of sessions works: 1 or 0.", works)
        yield CounterMetricFamily(
            f"{PREFIX}sessions_rewound",
            "Sessions of which the store had lost acknowledged steps.",
            self._service.counters.rewound,
        )
        if self._service.unsaved is not None:
            text = "Sessions of which the store lacks the newest steps, as answers leave first."
            yield GaugeMetricFamily(f"{PREFIX}sessions_unsaved", text, self._service.unsaved)
            text = "Sessions of which answered steps were lost, as another server had changed them."
            yield CounterMetricFamily(f"{PREFIX}sessions_lost", text, keeper.lost)
        yield from _of_store(keeper.store.counters)


def _of_store(counters: StoreCounters) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        f"{PREFIX}store_operation_duration_seconds",
        "One operation of the store; loads and commits are of many records at once.",
        labels=("operation",),
    )
    for operation, histogram in counters.seconds.items():
        durations.add_metric((operation,), _buckets(histogram), histogram.total)
    yield durations
    loads = {outcome: counters.loads[outcome] for outcome in get_args(LoadOutcome)}
    commits = {outcome: counters.commits[outcome] for outcome in get_args(CommitOutcome)}
    yield _counted("store_loads", "Records asked of the store.", "outcome", loads.items())
    yield _counted("store_commits", "Changes given to the store.", "outcome", commits.items())
    yield CounterMetricFamily(f"{PREFIX}store_read_bytes", "Records that were loaded.", counters.bytes_read)
    yield CounterMetricFamily(f"{PREFIX}store_written_bytes", "Records that were stored.", counters.bytes_written)
    yield CounterMetricFamily(
        f"{PREFIX}store_swept_records", "Expired records that the server removed from the store.", counters.swept
    )


def _counted(name: str, text: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=(label,))
    for value, count in counts:
        family.add_metric((value,), count)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(f"{PREFIX}{name}", text, buckets=_buckets(histogram), sum_value=histogram.total)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return each upper bound, with the number of values that are at most as large."""
    buckets, below = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(below)))
    return buckets
