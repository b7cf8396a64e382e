"""The endpoints of one session, except the busiest one, which is in `events`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import (
    CAPACITY,
    FOREIGN_ORIGIN,
    INVALID_REQUEST,
    INVALID_SESSION_ID,
    INVALID_STATE,
    MODEL_MISMATCH,
    PAYLOAD_TOO_LARGE,
    UNKNOWN_SESSION,
    UNSUPPORTED_ENCODING,
)
from arraylstm_serve.api.schemas import PeekQuery, SessionAnswer, SessionInfo
from arraylstm_serve.http.body import decode_query, read_body
from arraylstm_serve.http.endpoints import KEY_PROBLEMS, TURN_PROBLEMS, Endpoint, ask, session_id_of
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import json_response
from arraylstm_serve.sessions import state_file
from arraylstm_serve.sessions.management import Inspect, Peek, Remove, Restore, Save
from arraylstm_serve.sessions.rendering import render_session, write_predictions
from arraylstm_serve.sessions.service import Service

SESSION = "/v1/sessions/{session_id}"

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
        UNSUPPORTED_ENCODING,
        CAPACITY,
    ),
)


async def inspect(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}."""
    command = Inspect(session_id=session_id_of(request), describe=service.describe)
    return json_response(await ask(service, call, command))


async def remove(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer DELETE /v1/sessions/{session_id}."""
    await ask(service, call, Remove(session_id=session_id_of(request), idempotency_key=call.idempotency_key()))
    return Response(status_code=204)


async def peek(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}/predictions."""
    session_id = session_id_of(request)
    query = decode_query(PeekQuery, request.query_params)
    command = Peek(session_id=session_id, top_k=query.top_k, render=render_session, write=write_predictions)
    return json_response(await ask(service, call, command))


async def save(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}/state."""
    session_id = session_id_of(request)
    body = await ask(service, call, Save(session_id=session_id))
    name = f'attachment; filename="{session_id}.safetensors"'
    return Response(body, media_type=state_file.MEDIA_TYPE, headers={"Content-Disposition": name})


async def restore(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer PUT /v1/sessions/{session_id}/state."""
    session_id = session_id_of(request)
    body = await read_body(service, call, request.receive, max(service.settings.max_body, service.largest_state))
    command = Restore(
        session_id=session_id, idempotency_key=call.idempotency_key(), file=body, describe=service.describe
    )
    return json_response(await ask(service, call, command))


ENDPOINTS = (
    Endpoint(INSPECT, inspect),
    Endpoint(REMOVE, remove),
    Endpoint(PEEK, peek),
    Endpoint(SAVE, save),
    Endpoint(RESTORE, restore),
)
