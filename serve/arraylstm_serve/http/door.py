"""What stands behind one listener: its operations, the checks before them, and its refusals."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from arraylstm_serve import __version__
from arraylstm_serve.api.openapi import PROTECTED, Operation, document
from arraylstm_serve.api.problems import METHOD_NOT_ALLOWED, NOT_FOUND, Problem, internal, not_allowed, stopping
from arraylstm_serve.http import websocket
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.endpoints import Endpoint, Handler
from arraylstm_serve.http.metrics import Metrics
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import CLIENT_GONE, OTHER, RESPONDER, Responder, problem_response
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.settings import Settings
from arraylstm_serve.text import shown

logger = logging.getLogger(__name__)

Refuse = Callable[[str, Problem], Response]
"""Writes a problem in the form of the protocol that a path belongs to."""


class Door(FastAPI):
    """Some operations of a service, for one listener.

    Args:
        service: the service.
        settings: the listener's: which hosts and origins are let in.
        keys: the API keys that are asked for; None if none is.
        endpoints: the operations, each with the function that answers it.
        about: the title and description of the OpenAPI document.
        refuse: writes problems.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        keys: Keys | None,
        endpoints: Sequence[Endpoint],
        about: Mapping[str, str],
        refuse: Refuse = lambda path, problem: problem_response(problem),
    ) -> None:
        super().__init__(
            title=about["title"],
            version=__version__,
            openapi_url="/openapi.json" if settings.docs == "on" else None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self.service = service
        self.settings = settings
        self.keys = keys
        self.metrics = Metrics(service)
        self.operations = [endpoint.operation for endpoint in endpoints]
        self._about = about
        self._refuse = refuse
        self._http: ASGIApp = self._answer
        for operation, handler in endpoints:
            self.add_api_route(
                operation.path, _endpoint(handler, service), methods=_methods(operation), include_in_schema=False
            )
        self.add_exception_handler(Problem, self._on_problem)
        self.add_exception_handler(HTTPException, self._on_http_exception)
        self.add_exception_handler(Exception, self._on_failure)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of every operation, also of those outside FastAPI."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self.operations, __version__, self._about)
        return self.openapi_schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request. Every HTTP request, CORS preflights included, gets an id and is counted."""
        kind = scope["type"]
        if kind == "http":
            responder = Responder(self.service, scope, send)
            try:
                await self._http(scope, receive, responder.send)
            finally:
                responder.close()
        elif kind == "websocket":
            await websocket.handle(self.service, self.check, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def check(self, call: RequestHead, scope: Scope) -> None:
        """Let a request in, over HTTP or WebSocket, or refuse it: the one place for hosts, origins, keys and scopes.

        Raises:
            Problem: `foreign_host`, `foreign_origin`, `unauthorized`, `forbidden`; `not_found`: there is no such
                WebSocket.
        """
        call.check_host(self.settings.hosts)
        call.check_origin(scope, self.settings.cors_origin)
        stream = scope["type"] == "websocket"
        if stream or scope["path"].startswith(PROTECTED):
            call.authorise(self.keys)
            if call.key is not None and call.key.limited:
                call.key.check(self.operation(scope))
        if stream and self.operation(scope) is None:
            raise Problem(NOT_FOUND, f"There is no WebSocket at {shown(scope['path'])}.")

    def operation(self, scope: Scope) -> Operation | None:
        """Return the operation that a request is for; None if it is for none."""
        if scope["type"] != "http":
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        for route in self.routes:
            if route.matches(scope)[0] is Match.FULL:
                found = (getattr(route, "path", ""), method)
                return next((known for known in self.operations if (known.path, known.method) == found), None)
        return None

    def route_outside(self, path: str) -> str:
        """Return the route of a path that is answered outside FastAPI; empty for any other."""
        return ""

    async def dispatch(self, responder: Responder, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was let in."""
        await super().__call__(scope, receive, send)

    async def before_refusal(self, responder: Responder) -> None:
        """Wait until a refusal may be sent."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request; if the server stops first, tell the client so."""
        responder: Responder = scope[RESPONDER]
        path: str = scope["path"]
        responder.route = self.route_outside(path)
        try:
            self.check(responder.call, scope)
            await self.dispatch(responder, scope, receive, send)
        except Problem as problem:
            responder.route = responder.route or self._route(scope)
            await self.before_refusal(responder)
            await self._refuse(path, problem)(scope, receive, send)
        except ClientDisconnect:
            pass
        except CancelledError:
            await self._refuse(path, stopping())(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], path)
            if responder.status == CLIENT_GONE:  # FastAPI has not answered; if it has, it passes the error on too
                await self._refuse(path, internal())(scope, receive, send)

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        path = request.url.path
        if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED.status:
            methods = {method for route in self._matching(request.scope) for method in route.methods or ()}
            allowed = ", ".join(sorted(methods or {"GET", "HEAD"}))  # the console's files have these
            return self._refuse(path, not_allowed(request.method, path, allowed))
        return self._refuse(path, Problem(NOT_FOUND, f"There is nothing at {shown(path)}{self.advice}."))

    @property
    def advice(self) -> str:
        """What to tell a client that asks for a path that is not there."""
        return "" if self.openapi_url is None else f"; {self.openapi_url} lists what there is"

    async def _on_problem(self, request: Request, error: Exception) -> Response:
        return self._refuse(request.url.path, error if isinstance(error, Problem) else internal())

    async def _on_failure(self, request: Request, error: Exception) -> Response:
        return self._refuse(request.url.path, internal())

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
