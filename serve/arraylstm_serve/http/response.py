"""Answers to HTTP requests: sent, counted and logged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from arraylstm_serve.api.problems import JSON, MEDIA_TYPE, Problem
from arraylstm_serve.http.access_log import log_access
from arraylstm_serve.http.request import REQUEST_ID, RequestHead
from arraylstm_serve.http.uvicorn_hooks import CYCLE, REFUSED, send_whole
from arraylstm_serve.sessions.service import Service

CLIENT_GONE = 499
"""The status, as in nginx, of a request whose client closed the connection before the answer."""

OTHER = "other"
"""The route of requests that belong to no operation."""

RESPONDER = "arraylstm.responder"
"""Where a request's scope has its Responder."""

_JSON_HEAD = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"


class Responder:
    """Sends the answer to one HTTP request, then counts and logs it.

    Attributes:
        call: the request.
        route: the path of its operation, as the metrics name it.
        status: the answer's; 499 until the client has one.
    """

    __slots__ = ("_cycle", "_scope", "_send", "call", "route", "service", "status")

    def __init__(self, service: Service, scope: Scope, send: Send) -> None:
        self.service = service
        self.call = RequestHead(scope)
        self.route = ""
        self.status = CLIENT_GONE
        self._scope = scope
        self._send = send
        self._cycle: RequestResponseCycle | None = scope.pop(CYCLE, None)
        scope[RESPONDER] = self

    async def send(self, message: Message) -> None:
        """Pass a message on to the server; add the request's id to the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID, self.call.request_id)]
        await self._send(message)
        if self._cycle is not None and self._cycle.disconnected:
            self.status = CLIENT_GONE

    async def answer(self, body: bytes, send: Send) -> None:
        """Answer with JSON and status 200.

        Args:
            body: the JSON.
            send: `self.send`, or what middleware made of it. The answer goes out in one write if it is the former.
        """
        cycle = self._cycle if send == self.send else None
        if cycle is not None and send_whole(cycle, _JSON_HEAD % (len(body), self.call.request_id), body):
            self.status = 200
            return
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent, or has gone."""
        if self._cycle is not None and not self._cycle.disconnected:
            await self._cycle.flow.drain()

    def close(self) -> None:
        """Count and log the request."""
        if self.call.body_bytes:
            self.service.bodies.give(self.call.client, self.call.body_bytes)
        del self._scope[RESPONDER]  # each refers to the other, and cycles wait for the garbage collector
        if self.status == CLIENT_GONE:
            self.status = self._scope.get(REFUSED, CLIENT_GONE)
        route = self.route or getattr(self._scope.get("route"), "path", OTHER)
        record(self.service, self.call, self._scope, route, self.status)


class StreamedResponse(Response):
    """JSON in pieces, each made when the client has read those before it. If the client goes, the others are made too.

    Args:
        pieces: the pieces, as they are made.
    """

    media_type = JSON

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        responder: Responder = scope[RESPONDER]
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await responder.drained()
        await send({"type": "http.response.body", "body": b""})


def record(service: Service, call: RequestHead, scope: Scope, route: str, status: int) -> None:
    """Count an answer; log it if --access-log is given."""
    seconds = perf_counter() - call.arrived
    service.counters.answered(route, status, seconds)
    if service.settings.access_log:
        log_access(scope, call, status, seconds)


def problem_response(problem: Problem) -> Response:
    """Return a problem as a Starlette response."""
    return Response(problem.body(), status_code=problem.kind.status, headers=problem.headers, media_type=MEDIA_TYPE)


def json_response(body: bytes, status: int = 200) -> Response:
    """Return encoded JSON as a Starlette response."""
    return Response(body, status_code=status, media_type=JSON)
