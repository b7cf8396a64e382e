"""The HTTP surface: a handler for each operation, in one FastAPI application."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from arraylstm_serve import __version__, events, operations
from arraylstm_serve.docs import add_docs
from arraylstm_serve.openapi import Operation, document
from arraylstm_serve.problems import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Problem,
    internal,
    shown,
    stopping,
)
from arraylstm_serve.schemas import Health, PeekQuery, PredictRequest, encode
from arraylstm_serve.service import Service
from arraylstm_serve.wire import (
    JSON,
    decode,
    decode_query,
    problem_response,
    read_body,
    valid_session_id,
)

Handler = Callable[[Service, Request], Awaitable[Response]]

predict_decoder = msgspec.json.Decoder(PredictRequest)


async def inspect(service: Service, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}."""
    return _json(service.inspect(_session_id(request)))


async def remove(service: Service, request: Request) -> Response:
    """Answer DELETE /v1/sessions/{session_id}."""
    await service.remove(_session_id(request))
    return Response(status_code=204)


async def peek(service: Service, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}/predictions."""
    session_id = _session_id(request)
    query = decode_query(PeekQuery, request.query_params)
    return _json(await service.peek(session_id, query.top_k))


async def predict(service: Service, request: Request) -> Response:
    """Answer POST /v1/predict."""
    body = await read_body(request.receive, service.settings.max_body)
    return _json(await service.predict(decode(predict_decoder, body)))


async def model(service: Service, request: Request) -> Response:
    """Answer GET /v1/model."""
    return _json(service.bundle.document)


async def live(service: Service, request: Request) -> Response:
    """Answer GET /healthz."""
    return _json(encode(Health("ok")))


async def ready(service: Service, request: Request) -> Response:
    """Answer GET /readyz."""
    if service.draining:
        return _json(encode(Health("draining")), status=503)
    return _json(encode(Health("ready")))


HANDLERS: tuple[tuple[Operation, Handler], ...] = (
    (operations.INSPECT, inspect),
    (operations.REMOVE, remove),
    (operations.PEEK, peek),
    (operations.PREDICT, predict),
    (operations.MODEL, model),
    (operations.LIVE, live),
    (operations.READY, ready),
)


class Application(FastAPI):
    """The API over one service; its busiest route is answered before FastAPI's layers."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            title="arraylstm-serve", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
        )
        self.service = service
        add_docs(self)
        for operation, handler in HANDLERS:
            self.add_api_route(
                operation.path, _bound(handler, service), methods=_methods(operation), include_in_schema=False
            )
        self.add_exception_handler(Problem, _on_problem)
        self.add_exception_handler(HTTPException, self._on_http_exception)
        self.add_exception_handler(ClientDisconnect, _on_disconnect)
        self.add_exception_handler(Exception, _on_failure)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of every operation, those outside FastAPI included."""
        return document(operations.OPERATIONS, __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request; one that the end of the server cuts off is told so."""
        try:
            if events.concerns(scope):
                await events.handle(self.service, scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        except CancelledError:
            await problem_response(stopping())(scope, receive, send)

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        path = shown(request.url.path)
        if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED.status:
            allowed = ", ".join(self._allowed(request))
            detail = f"{request.method} is not allowed for {path}; allowed: {allowed}."
            return problem_response(Problem(METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed}))
        return problem_response(Problem(NOT_FOUND, f"There is nothing at {path}; /docs lists what there is."))

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
        return await handler(service, request)

    return endpoint


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type=JSON)


def _session_id(request: Request) -> str:
    return valid_session_id(request.path_params["session_id"])


async def _on_problem(request: Request, error: Exception) -> Response:
    return problem_response(error if isinstance(error, Problem) else internal())


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _on_failure(request: Request, error: Exception) -> Response:
    return problem_response(internal())
