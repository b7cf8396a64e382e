"""The HTTP surface: every operation in one FastAPI application."""

from __future__ import annotations

import json
import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from arraylstm_serve import __version__, events, handlers, logs, oip, oip_operations, operations, stream
from arraylstm_serve.call import REQUEST_ID, Call
from arraylstm_serve.console import add_console
from arraylstm_serve.docs import add_docs
from arraylstm_serve.handlers import Handler
from arraylstm_serve.metrics import Metrics
from arraylstm_serve.openapi import Operation, document
from arraylstm_serve.problems import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Problem,
    internal,
    shown,
    stopping,
)
from arraylstm_serve.service import Service
from arraylstm_serve.wire import (
    problem_response,
    send_answer,
)

PROTECTED = ("/v1/", "/v2", "/metrics")
"""Where an API key is asked for, if any are."""

CLIENT_GONE = 499
OTHER = "other"
"""The route of requests for what there is not."""

logger = logging.getLogger(__name__)

OPERATIONS = (*operations.OPERATIONS, *oip_operations.OPERATIONS)


def published() -> str:
    """The OpenAPI document as the repository has it in docs/openapi.json, the same for every version."""
    return json.dumps(document(OPERATIONS, version="0"), indent=2) + "\n"


class Exchange:
    """An HTTP request and the answer on its way.

    Attributes:
        route: the path of the operation, as the metrics call it.
        status: the answer's, 499 while the client has none.
    """

    __slots__ = ("_call", "_scope", "_send", "_service", "route", "status")

    def __init__(self, service: Service, call: Call, scope: Scope, send: Send) -> None:
        self._service = service
        self._call = call
        self._scope = scope
        self._send = send
        self.route = ""
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        """Pass a message on; the answer's head gets the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID, self._call.request_id)]
        await self._send(message)

    def close(self) -> None:
        """Count the answer, and log it where that is wanted."""
        seconds = perf_counter() - self._call.arrived
        route = self.route or getattr(self._scope.get("route"), "path", OTHER)
        self._service.figures.answered(route, self.status, seconds)
        if self._service.settings.access_log:
            logs.access(self._scope, self._call, self.status, seconds)


class Application(FastAPI):
    """The API over one service; its busiest route is answered before FastAPI's layers."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            title="arraylstm-serve", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
        )
        self.service = service
        self.metrics = Metrics(service)
        add_docs(self)
        add_console(self)
        for operation, handler in (*handlers.HANDLERS, *oip.HANDLERS):
            self.add_api_route(
                operation.path, _bound(handler, service), methods=_methods(operation), include_in_schema=False
            )
        self.add_exception_handler(Problem, _on_problem)
        self.add_exception_handler(HTTPException, self._on_http_exception)
        self.add_exception_handler(Exception, _on_failure)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of every operation, those outside FastAPI included."""
        return document(OPERATIONS, __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request; one that the end of the server cuts off is told so."""
        kind = scope["type"]
        if kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "websocket" and scope["path"] == stream.PATH:
            await stream.handle(self.service, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request, and count it."""
        call = scope["call"] = Call(scope)
        exchange = Exchange(self.service, call, scope, send)
        path: str = scope["path"]
        try:
            call.check_origin(scope, self.service.settings.cors_origin)
            if path.startswith(PROTECTED):
                call.authorise(self.service.keys)
            if not events.concerns(path):
                await super().__call__(scope, receive, exchange.send)
            else:
                exchange.route = events.PATH
                body = await events.answer(self.service, call, scope, receive)
                exchange.status = 200
                await send_answer(send, body, call.request_id)
        except Problem as problem:
            await _refusal(path, problem)(scope, receive, exchange.send)
        except ClientDisconnect:
            pass
        except CancelledError:
            await _refusal(path, stopping())(scope, receive, exchange.send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], path)
            if exchange.status == CLIENT_GONE:  # else FastAPI has answered, and passed the fault on
                await _refusal(path, internal())(scope, receive, exchange.send)
        exchange.close()

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        path = request.url.path
        if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED.status:
            allowed = ", ".join(self._allowed(request))
            detail = f"{request.method} is not allowed for {shown(path)}; allowed: {allowed}."
            return _refusal(path, Problem(METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed}))
        return _refusal(path, Problem(NOT_FOUND, f"There is nothing at {shown(path)}; /docs lists what there is."))

    def _allowed(self, request: Request) -> list[str]:
        """The methods of the operations that the request's path matches."""
        matching = [
            route
            for route in self.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        ]
        return sorted({method for route in matching for method in route.methods or ()})


def _methods(operation: Operation) -> list[str]:
    """The operation's method; what can be got can be asked for its head."""
    return ["GET", "HEAD"] if operation.method == "GET" else [operation.method]


def _bound(handler: Handler, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(service, request.scope["call"], request)

    return endpoint


def _refusal(path: str, problem: Problem) -> Response:
    """A problem in the words of the protocol that the path belongs to."""
    return oip.error_response(problem) if oip.concerns(path) else problem_response(problem)


async def _on_problem(request: Request, error: Exception) -> Response:
    return _refusal(request.url.path, error if isinstance(error, Problem) else internal())


async def _on_failure(request: Request, error: Exception) -> Response:
    return _refusal(request.url.path, internal())
