"""Every operation of the API: its path, its types and what it can be refused for."""

from __future__ import annotations

from arraylstm_serve import events
from arraylstm_serve.bundle import Manifest
from arraylstm_serve.openapi import Operation
from arraylstm_serve.problems import (
    CAPACITY,
    IDEMPOTENCY_KEY_REUSED,
    INTERNAL,
    INVALID_JSON,
    INVALID_REQUEST,
    INVALID_SESSION_ID,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    SESSION_GONE,
    STEP_CONFLICT,
    STOPPING,
    UNKNOWN_ITEM,
    UNKNOWN_SESSION,
)
from arraylstm_serve.schemas import (
    EventsRequest,
    Health,
    PeekQuery,
    PredictAnswer,
    PredictRequest,
    SessionAnswer,
    SessionInfo,
)

BODY_PROBLEMS = (INVALID_JSON, INVALID_REQUEST, UNKNOWN_ITEM, PAYLOAD_TOO_LARGE, OVERLOADED, STOPPING, INTERNAL)
TURN_PROBLEMS = (UNKNOWN_SESSION, INVALID_SESSION_ID, OVERLOADED, STOPPING, INTERNAL)

SESSION = "/v1/sessions/{session_id}"

ADVANCE = Operation(
    method="POST",
    path=events.PATH,
    name="advance",
    summary="Tell a session the items it has just seen; the session begins with its first ones.",
    answers={200: SessionAnswer},
    body=EventsRequest,
    keyed=True,
    problems=(
        *BODY_PROBLEMS,
        INVALID_SESSION_ID,
        IDEMPOTENCY_KEY_REUSED,
        STEP_CONFLICT,
        SESSION_GONE,
        CAPACITY,
    ),
)
INSPECT = Operation(
    method="GET",
    path=SESSION,
    name="inspect",
    summary="Where a session stands; asking does not keep it from expiring.",
    answers={200: SessionInfo},
    problems=(UNKNOWN_SESSION, INVALID_SESSION_ID),
)
REMOVE = Operation(
    method="DELETE",
    path=SESSION,
    name="remove",
    summary="Forget a session.",
    answers={204: None},
    problems=TURN_PROBLEMS,
)
PEEK = Operation(
    method="GET",
    path=f"{SESSION}/predictions",
    name="peek",
    summary="A session's predictions, its state unmoved.",
    answers={200: SessionAnswer},
    query=PeekQuery,
    problems=(*TURN_PROBLEMS, INVALID_REQUEST),
)
PREDICT = Operation(
    method="POST",
    path="/v1/predict",
    name="predict",
    summary="The predictions after a whole history, without a session.",
    answers={200: PredictAnswer},
    body=PredictRequest,
    problems=BODY_PROBLEMS,
)
MODEL = Operation(
    method="GET",
    path="/v1/model",
    name="model",
    summary="The manifest of the model served.",
    answers={200: Manifest},
)
LIVE = Operation(method="GET", path="/healthz", name="live", summary="Whether the server lives.", answers={200: Health})
READY = Operation(
    method="GET",
    path="/readyz",
    name="ready",
    summary="Whether the server takes requests.",
    answers={200: Health, 503: Health},
)

OPERATIONS = (ADVANCE, INSPECT, REMOVE, PEEK, PREDICT, MODEL, LIVE, READY)
