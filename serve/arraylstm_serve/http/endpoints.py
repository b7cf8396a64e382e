"""What the endpoints of the API share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import (
    DEADLINE_EXCEEDED,
    FOREIGN_ORIGIN,
    IDEMPOTENCY_KEY_REUSED,
    INTERNAL,
    INVALID_JSON,
    INVALID_REQUEST,
    INVALID_SESSION_ID,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    SESSION_BUSY,
    SESSION_DAMAGED,
    SESSION_REWOUND,
    STOPPING,
    STORE_UNAVAILABLE,
    UNKNOWN_ITEM,
    UNSUPPORTED_ENCODING,
)
from arraylstm_serve.http.body import valid_session_id
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.sessions.commands import Command
from arraylstm_serve.sessions.service import Service

RUN_PROBLEMS = (OVERLOADED, DEADLINE_EXCEEDED, STOPPING, INTERNAL, STORE_UNAVAILABLE, SESSION_DAMAGED, SESSION_REWOUND)
BODY_PROBLEMS = (
    INVALID_JSON,
    INVALID_REQUEST,
    UNKNOWN_ITEM,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_ENCODING,
    FOREIGN_ORIGIN,
    *RUN_PROBLEMS,
)
TURN_PROBLEMS = (INVALID_SESSION_ID, SESSION_BUSY, *RUN_PROBLEMS)
KEY_PROBLEMS = (INVALID_REQUEST, IDEMPOTENCY_KEY_REUSED)

Handler = Callable[[Service, RequestHead, Request], Awaitable[Response]]


class Endpoint(NamedTuple):
    """An operation, and the function that answers it."""

    operation: Operation
    handler: Handler


def ask(service: Service, call: RequestHead, command: Command) -> Awaitable[bytes]:
    """Carry out a command for the caller of a request, and return its answer.

    Raises:
        Problem: the command is refused at once; a later refusal is raised when the answer is awaited.
    """
    return service.ask(command, call.caller(service.settings.request_timeout))


def session_id_of(request: Request) -> str:
    """Return the session id in a request's path.

    Raises:
        Problem: `invalid_session_id`.
    """
    return valid_session_id(request.path_params["session_id"])
