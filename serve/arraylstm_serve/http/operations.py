"""Every operation of /v1 and around it: its path, its types and the reasons to refuse it."""

from __future__ import annotations

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import (
    CAPACITY,
    DEADLINE_EXCEEDED,
    FOREIGN_ORIGIN,
    IDEMPOTENCY_KEY_REUSED,
    INTERNAL,
    INVALID_JSON,
    INVALID_REQUEST,
    INVALID_SESSION_ID,
    INVALID_STATE,
    MODEL_MISMATCH,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    SESSION_BUSY,
    SESSION_GONE,
    STEP_CONFLICT,
    STOPPING,
    UNKNOWN_ITEM,
    UNKNOWN_SESSION,
    UPGRADE_REQUIRED,
)
from arraylstm_serve.api.schemas import (
    BulkAnswer,
    BulkRequest,
    EventsRequest,
    Health,
    PeekQuery,
    PredictAnswer,
    PredictRequest,
    SessionAnswer,
    SessionInfo,
    Stats,
)
from arraylstm_serve.bundle.manifest import Manifest, VocabularyFile
from arraylstm_serve.http import events
from arraylstm_serve.http import websocket as stream

RUN_PROBLEMS = (OVERLOADED, DEADLINE_EXCEEDED, STOPPING, INTERNAL)
BODY_PROBLEMS = (INVALID_JSON, INVALID_REQUEST, UNKNOWN_ITEM, PAYLOAD_TOO_LARGE, FOREIGN_ORIGIN, *RUN_PROBLEMS)
TURN_PROBLEMS = (INVALID_SESSION_ID, SESSION_BUSY, *RUN_PROBLEMS)
KEY_PROBLEMS = (INVALID_REQUEST, IDEMPOTENCY_KEY_REUSED)

SESSION = "/v1/sessions/{session_id}"

ADVANCE = Operation(
    method="POST",
    path=events.PATH,
    name="advance",
    summary="Tell a session the items it has just seen; the first ones begin it.",
    answers={200: SessionAnswer},
    body=EventsRequest,
    keyed=True,
    problems=(
        *BODY_PROBLEMS,
        INVALID_SESSION_ID,
        SESSION_BUSY,
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
    summary="A session's step and times; to ask for them does not prolong its life.",
    answers={200: SessionInfo},
    problems=(UNKNOWN_SESSION, INVALID_SESSION_ID),
)
REMOVE = Operation(
    method="DELETE",
    path=SESSION,
    name="remove",
    summary="Delete a session and its answers for idempotency keys.",
    answers={204: None},
    keyed=True,
    problems=(*TURN_PROBLEMS, *KEY_PROBLEMS, FOREIGN_ORIGIN, UNKNOWN_SESSION),
)
PEEK = Operation(
    method="GET",
    path=f"{SESSION}/predictions",
    name="peek",
    summary="A session's predictions; its state does not change.",
    answers={200: SessionAnswer},
    query=PeekQuery,
    problems=(*TURN_PROBLEMS, UNKNOWN_SESSION, INVALID_REQUEST),
)
SAVE = Operation(
    method="GET",
    path=f"{SESSION}/state",
    name="save",
    summary="A session's state as a safetensors file; the session also continues here.",
    answers={200: bytes},
    problems=(*TURN_PROBLEMS, UNKNOWN_SESSION),
)
RESTORE = Operation(
    method="PUT",
    path=f"{SESSION}/state",
    name="restore",
    summary="Give a session a state that this model made; the session begins with it if it does not exist.",
    answers={200: SessionInfo},
    body=bytes,
    keyed=True,
    problems=(
        *TURN_PROBLEMS,
        *KEY_PROBLEMS,
        FOREIGN_ORIGIN,
        MODEL_MISMATCH,
        INVALID_STATE,
        PAYLOAD_TOO_LARGE,
        CAPACITY,
    ),
)
ADVANCE_ALL = Operation(
    method="POST",
    path="/v1/events",
    name="advance_all",
    summary="Tell many sessions the items they have just seen; a refused event does not affect the others.",
    answers={200: BulkAnswer},
    body=BulkRequest,
    problems=(INVALID_JSON, INVALID_REQUEST, PAYLOAD_TOO_LARGE, FOREIGN_ORIGIN, STOPPING, INTERNAL),
)
STREAM = Operation(
    method="GET",
    path=stream.PATH,
    name="stream",
    summary="A WebSocket: each message is a BulkEvent, answered in order with a SessionAnswer or a ProblemBody.",
    answers={101: None},
    problems=(FOREIGN_ORIGIN, UPGRADE_REQUIRED),
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
VOCABULARY = Operation(
    method="GET",
    path="/v1/vocabulary",
    name="vocabulary",
    summary="The labels of the items in the order of their ids, null if the ids are the labels; and the unknown item.",
    answers={200: VocabularyFile},
)
STATS = Operation(
    method="GET",
    path="/v1/stats",
    name="stats",
    summary="Live figures of this server process.",
    answers={200: Stats},
)
METRICS = Operation(
    method="GET",
    path="/metrics",
    name="metrics",
    summary="The figures for Prometheus.",
    answers={200: str},
)
LIVE = Operation(
    method="GET", path="/healthz", name="live", summary="Whether the server is alive.", answers={200: Health}
)
READY = Operation(
    method="GET",
    path="/readyz",
    name="ready",
    summary="Whether the server is ready for requests.",
    answers={200: Health, 503: Health},
)

OPERATIONS = (
    ADVANCE,
    INSPECT,
    REMOVE,
    PEEK,
    SAVE,
    RESTORE,
    ADVANCE_ALL,
    STREAM,
    PREDICT,
    MODEL,
    VOCABULARY,
    STATS,
    LIVE,
    READY,
    METRICS,
)
