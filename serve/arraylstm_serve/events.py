"""The busiest route, answered as raw ASGI before FastAPI's layers."""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from arraylstm_serve.problems import METHOD_NOT_ALLOWED, Problem, internal
from arraylstm_serve.schemas import EventsRequest
from arraylstm_serve.service import Service
from arraylstm_serve.wire import (
    decode,
    idempotency_key,
    problem_response,
    read_body,
    send_answer,
    valid_session_id,
)

PREFIX = "/v1/sessions/"
SUFFIX = "/events"
PATH = f"{PREFIX}{{session_id}}{SUFFIX}"

logger = logging.getLogger(__name__)
decoder = msgspec.json.Decoder(EventsRequest)


def concerns(scope: Scope) -> bool:
    """Whether a request is for this route."""
    path: str = scope.get("path", "")
    whole = len(path) >= len(PREFIX) + len(SUFFIX)
    return scope["type"] == "http" and whole and path.endswith(SUFFIX) and path.startswith(PREFIX)


async def handle(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer POST /v1/sessions/{session_id}/events."""
    try:
        answer = await _answer(service, scope, receive)
    except Problem as problem:
        await problem_response(problem)(scope, receive, send)
    except ClientDisconnect:
        return
    except Exception:
        logger.exception("%s %s failed", scope["method"], scope["path"])
        await problem_response(internal())(scope, receive, send)
    else:
        await send_answer(send, answer)


async def _answer(service: Service, scope: Scope, receive: Receive) -> bytes:
    if scope["method"] != "POST":
        detail = f"{scope['method']} is not allowed here; allowed is POST."
        raise Problem(METHOD_NOT_ALLOWED, detail, headers={"Allow": "POST"})
    session_id = valid_session_id(scope["path"][len(PREFIX) : -len(SUFFIX)])
    key = idempotency_key(scope)
    request = decode(decoder, await read_body(receive, service.settings.max_body))
    return await service.advance(session_id, request, key)
