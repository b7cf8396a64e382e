"""What is sent: events of sessions, drawn once, as requests and messages that stand ready."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from bundles import Served
from load import post

SESSION = "/v1/sessions/{}/events"
BULK = "/v1/events"
STREAM = "/v1/stream"

_OWN = 16  # sessions of each connection: an event is answered long before its session has the next one
_BULKS = 16  # bulk requests, no two with a session in common

Event = dict[str, Any]


def events(model: Served, count: int) -> list[Event]:
    """Return one event each of so many sessions."""
    items = np.random.default_rng(0).integers(0, model.num_items, count).tolist()
    return [{"session_id": f"session-{index}", "items": [item]} for index, item in enumerate(items)]


def requests(model: Served, connections: int, request: Callable[[Event], bytes]) -> list[bytes]:
    """Return requests of one event each, enough for each connection to have sessions of its own."""
    return [request(event) for event in events(model, connections * _OWN)]


def single_events(model: Served, connections: int) -> list[bytes]:
    """Return such requests to a session's own path."""
    return requests(
        model, connections, lambda event: post(SESSION.format(event["session_id"]), {"items": event["items"]})
    )


def bulk_events(model: Served, size: int) -> list[bytes]:
    """Return requests with so many events each."""
    every = events(model, size * _BULKS)
    return [post(BULK, {"events": every[start : start + size]}) for start in range(0, len(every), size)]


def stream_events(model: Served, connections: int) -> list[list[bytes]]:
    """Return each connection's messages."""
    messages = [json.dumps(event, separators=(",", ":")).encode() for event in events(model, connections * _OWN)]
    return [messages[start : start + _OWN] for start in range(0, len(messages), _OWN)]
