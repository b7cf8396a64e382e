"""The FastAPI application: every operation, its errors, CORS and the pages for browsers."""

from __future__ import annotations

import json
import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from arraylstm_serve import __version__
from arraylstm_serve.api.openapi import PROTECTED, Operation, document
from arraylstm_serve.api.problems import METHOD_NOT_ALLOWED, NOT_FOUND, Problem, internal, stopping
from arraylstm_serve.http import bulk, events, model, probes, sessions
from arraylstm_serve.http import websocket as stream
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.endpoints import Handler
from arraylstm_serve.http.metrics import Metrics
from arraylstm_serve.http.pages import add_console, add_docs
from arraylstm_serve.http.response import CLIENT_GONE, OTHER, RESPONDER, Responder, problem_response
from arraylstm_serve.open_inference import handlers as open_inference
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.text import shown

logger = logging.getLogger(__name__)

ENDPOINTS = (
    *sessions.ENDPOINTS,
    bulk.ENDPOINT,
    stream.ENDPOINT,
    *model.ENDPOINTS,
    *probes.ENDPOINTS,
    *open_inference.ENDPOINTS,
)
OPERATIONS = (events.ADVANCE, *(endpoint.operation for endpoint in ENDPOINTS))


def published() -> str:
    """Return the OpenAPI document for docs/openapi.json; its version is always 0."""
    return json.dumps(document(OPERATIONS, version="0"), indent=2) + "\n"


class Application(FastAPI):
    """The API of one service. The busiest route, events, is answered before FastAPI's layers."""

    def __init__(self, service: Service, keys: Keys | None) -> None:
        super().__init__(
            title="arraylstm-serve",
            version=__version__,
            openapi_url="/openapi.json" if service.settings.docs == "on" else None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self.service = service
        self.keys = keys
        self.metrics = Metrics(service)
        self._prefix = service.settings.root_path
        if self.openapi_url is not None:
            add_docs(self)
        add_console(self, self._prefix)
        for operation, handler in ENDPOINTS:
            self.add_api_route(
                operation.path, _endpoint(handler, service), methods=_methods(operation), include_in_schema=False
            )
        self.add_exception_handler(Problem, _on_problem)
        self.add_exception_handler(HTTPException, self._on_http_exception)
        self.add_exception_handler(Exception, _on_failure)
        self._http: ASGIApp = self._answer
        if origins := service.settings.cors_origin:
            self._http = CORSMiddleware(
                self._answer,
                allow_origins=origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["X-Request-ID", "Retry-After"],
            )

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of every operation, also of those outside FastAPI."""
        return document(OPERATIONS, __version__) | ({"servers": [{"url": self._prefix}]} if self._prefix else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request. Every HTTP request, CORS preflights included, gets an id and is counted."""
        kind = scope["type"]
        if self._prefix and kind != "lifespan" and scope["path"].startswith(f"{self._prefix}/"):
            scope["path"] = scope["path"][len(self._prefix) :]
        if kind == "http":
            responder = Responder(self.service, scope, send)
            await self._http(scope, receive, responder.send)
            responder.close()
        elif kind == "websocket":
            await stream.handle(self.service, self.keys, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request; if the server stops first, tell the client so."""
        responder: Responder = scope[RESPONDER]
        call = responder.call
        path: str = scope["path"]
        if events.concerns(path):
            responder.route = events.PATH
        try:
            call.check_host(self.service.settings.hosts)
            call.check_origin(scope, self.service.settings.cors_origin)
            if path.startswith(PROTECTED):
                call.authorise(self.keys)
                self.service.rates.spend(call.client)
            if responder.route:
                await responder.answer(await events.answer(self.service, call, scope, receive), send)
            else:
                await self.service.heavy.turn(call.client)
                await super().__call__(scope, receive, send)
        except Problem as problem:
            responder.route = responder.route or self._route(scope)
            await _refusal(path, problem)(scope, receive, send)
        except ClientDisconnect:
            pass
        except CancelledError:
            await _refusal(path, stopping())(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], path)
            if responder.status == CLIENT_GONE:  # FastAPI has not answered; if it has, it passes the error on too
                await _refusal(path, internal())(scope, receive, send)

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        path = request.url.path
        if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED.status:
            methods = {method for route in self._matching(request.scope) for method in route.methods or ()}
            allowed = ", ".join(sorted(methods or {"GET", "HEAD"}))  # the console's files have these
            detail = f"{request.method} is not allowed for {shown(path)}; allowed: {allowed}."
            return _refusal(path, Problem(METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed}))
        advice = "" if self.openapi_url is None else f"; {self._prefix}/docs lists what there is"
        return _refusal(path, Problem(NOT_FOUND, f"There is nothing at {shown(path)}{advice}."))

    def _matching(self, scope: Scope) -> list[Route]:
        """Return the routes that match a request's path."""
        return [
            route for route in self.routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
        ]

    def _route(self, scope: Scope) -> str:
        """Return the path of the route, for a request that was refused before routing."""
        return next((route.path for route in self._matching(scope)), OTHER)


def _methods(operation: Operation) -> list[str]:
    """Return the operation's methods; HEAD comes with GET."""
    return ["GET", "HEAD"] if operation.method == "GET" else [operation.method]


def _endpoint(handler: Handler, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(service, request.scope[RESPONDER].call, request)

    return endpoint


def _refusal(path: str, problem: Problem) -> Response:
    """Return a problem in the form of the protocol that the path belongs to."""
    return open_inference.error_response(problem) if open_inference.concerns(path) else problem_response(problem)


async def _on_problem(request: Request, error: Exception) -> Response:
    return _refusal(request.url.path, error if isinstance(error, Problem) else internal())


async def _on_failure(request: Request, error: Exception) -> Response:
    return _refusal(request.url.path, internal())
