"""The busiest route, POST events. It is answered as raw ASGI, without FastAPI's layers."""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import (
    CAPACITY,
    IDEMPOTENCY_KEY_REUSED,
    INVALID_SESSION_ID,
    SESSION_BUSY,
    SESSION_GONE,
    STEP_CONFLICT,
    Problem,
    not_allowed,
)
from arraylstm_serve.api.schemas import EventsRequest, SessionAnswer
from arraylstm_serve.http.body import decode, read_body, valid_session_id
from arraylstm_serve.http.endpoints import BODY_PROBLEMS
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.sessions.rendering import render_session, write_predictions
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.sessions.walking import Advance

PREFIX = "/v1/sessions/"
SUFFIX = "/events"
PATH = f"{PREFIX}{{session_id}}{SUFFIX}"

_decoder = msgspec.json.Decoder(EventsRequest)
_SHORTEST = len(PREFIX) + len(SUFFIX)

ADVANCE = Operation(
    method="POST",
    path=PATH,
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


def concerns(path: str) -> bool:
    """Return whether a path is of this route."""
    return path.endswith(SUFFIX) and path.startswith(PREFIX) and len(path) >= _SHORTEST


async def answer(service: Service, call: RequestHead, scope: Scope, receive: Receive) -> bytes:
    """Answer POST /v1/sessions/{session_id}/events.

    Raises:
        Problem: the request is refused.
        ClientDisconnect: the client has gone before the whole request arrived.
    """
    if scope["method"] != "POST":
        raise not_allowed(scope["method"], scope["path"], ADVANCE.method)
    await service.admission.enter(call.client)
    try:
        session_id = valid_session_id(scope["path"][len(PREFIX) : -len(SUFFIX)])
        key = call.idempotency_key()
        request = decode(_decoder, await read_body(service, call, receive))
    except Problem as problem:
        service.refused_event(problem, call.arrived)
        raise
    return await service.ask(advance(session_id, key, request), call.caller(service.settings.request_timeout))


def advance(session_id: str, idempotency_key: str | None, request: EventsRequest) -> Advance:
    """Return the command that a request asks for."""
    return Advance(
        session_id=session_id,
        idempotency_key=idempotency_key,
        items=request.items,
        top_k=request.top_k,
        exclude=request.exclude,
        render=render_session,
        write=write_predictions,
        expected_step=request.expected_step,
        end=request.end,
    )
