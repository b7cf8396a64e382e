"""Draw events of sessions once, and prepare them as requests and messages to send."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from bundles import Served
from load import post

SESSION = "/v1/sessions/{}/events"
BULK = "/v1/events"
STREAM = "/v1/stream"

_OWN = 16  # sessions of each connection: enough for an event to be answered long before its session's next one
_BULKS = 16  # bulk requests, no two with a session in common

Event = dict[str, Any]


def events(model: Served, count: int) -> list[Event]:
    """Return one event for each of this many sessions."""
    items = np.random.default_rng(0).integers(0, model.num_items, count).tolist()
    return [{"session_id": f"session-{index}", "items": [item]} for index, item in enumerate(items)]


def requests(model: Served, connections: int, request: Callable[[Event], bytes]) -> list[bytes]:
    """Return requests with one event each, so many that each connection has its own sessions."""
    return [request(event) for event in events(model, connections * _OWN)]


def single_events(model: Served, connections: int) -> list[bytes]:
    """Return requests with one event each, sent to the session's own path."""
    return requests(
        model, connections, lambda event: post(SESSION.format(event["session_id"]), {"items": event["items"]})
    )


def bulk_events(model: Served, size: int) -> list[bytes]:
    """Return requests with this many events each."""
    every = events(model, size * _BULKS)
    return [post(BULK, {"events": every[start : start + size]}) for start in range(0, len(every), size)]


def stream_events(model: Served, connections: int) -> list[list[bytes]]:
    """Return each connection's messages."""
    messages = [json.dumps(event, separators=(",", ":")).encode() for event in events(model, connections * _OWN)]
    return [messages[start : start + _OWN] for start in range(0, len(messages), _OWN)]
