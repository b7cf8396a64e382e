"""The application of the public listener: the API, CORS, and the pages for browsers."""

from __future__ import annotations

import json
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arraylstm_serve.api.openapi import PROTECTED, PUBLIC, Operation, document
from arraylstm_serve.api.problems import Problem
from arraylstm_serve.http import bulk, events, model, probes, sessions, websocket
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.door import Door
from arraylstm_serve.http.pages import add_console, add_docs
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import Responder, problem_response
from arraylstm_serve.open_inference import handlers as open_inference
from arraylstm_serve.sessions.service import Service

API = (
    *sessions.ENDPOINTS,
    bulk.ENDPOINT,
    websocket.ENDPOINT,
    *model.ENDPOINTS,
    probes.FIGURES,
    *open_inference.ENDPOINTS,
)
ENDPOINTS = (*API, *probes.ENDPOINTS)
OPERATIONS = (events.ADVANCE, *(endpoint.operation for endpoint in ENDPOINTS))


def published() -> str:
    """Return the OpenAPI document for docs/openapi.json; its version is always 0."""
    return json.dumps(document(OPERATIONS, version="0"), indent=2) + "\n"


class Application(Door):
    """The API of one service. The busiest route, events, is answered before FastAPI's layers."""

    def __init__(self, service: Service, keys: Keys | None) -> None:
        settings = service.settings
        endpoints = ENDPOINTS if settings.public_metrics == "on" else API
        super().__init__(service, settings, keys, endpoints, PUBLIC, refusal)
        self.operations.insert(0, events.ADVANCE)
        self._prefix = settings.root_path
        if self.openapi_url is not None:
            add_docs(self)
        add_console(self, self._prefix)
        if origins := settings.cors_origin:
            self._http = CORSMiddleware(
                self._answer,
                allow_origins=origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["X-Request-ID", "Retry-After"],
            )

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the path under which a proxy shows the server."""
        return super().openapi() | ({"servers": [{"url": self._prefix}]} if self._prefix else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request, with the proxy's path or without it."""
        if self._prefix and scope["type"] != "lifespan" and scope["path"].startswith(f"{self._prefix}/"):
            scope["path"] = scope["path"][len(self._prefix) :]
        await super().__call__(scope, receive, send)

    def check(self, call: RequestHead, scope: Scope) -> None:
        """See `Door.check`; a client's requests count here, the messages of a stream where they come.

        Raises:
            Problem: also `rate_limited`.
        """
        super().check(call, scope)
        if scope["type"] == "http" and scope["path"].startswith(PROTECTED):
            self.service.rates.spend(call.client)

    def operation(self, scope: Scope) -> Operation | None:
        """See `Door.operation`; streams and events are outside FastAPI."""
        path = scope["path"]
        if scope["type"] == "websocket":
            return websocket.STREAM if path == websocket.PATH else None
        if events.concerns(path):
            return events.ADVANCE if scope["method"] == events.ADVANCE.method else None
        return super().operation(scope)

    def route_outside(self, path: str) -> str:
        """See `Door.route_outside`."""
        return events.PATH if events.concerns(path) else ""

    async def dispatch(self, responder: Responder, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Door.dispatch`."""
        if responder.route:
            await responder.answer(await events.answer(self.service, responder.call, scope, receive), send)
        else:
            await self.service.heavy.turn(responder.call.client)
            if not responder.client_gone:
                await super().dispatch(responder, scope, receive, send)

    async def before_refusal(self, responder: Responder) -> None:
        """See `Door.before_refusal`; refusals take turns, as a client may cause any number of them."""
        await self.service.heavy.turn(responder.call.client)

    @property
    def advice(self) -> str:
        """See `Door.advice`."""
        return "" if self.openapi_url is None else f"; {self._prefix}/docs lists what there is"


def refusal(path: str, problem: Problem) -> Response:
    """Return a problem in the form of the protocol that the path belongs to."""
    return open_inference.error_response(problem) if open_inference.concerns(path) else problem_response(problem)
