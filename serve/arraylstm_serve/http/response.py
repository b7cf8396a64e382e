"""An HTTP request and the answer on its way: what is sent, counted and logged of it."""

from __future__ import annotations

from time import perf_counter

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from arraylstm_serve.api.problems import JSON, MEDIA_TYPE, Problem
from arraylstm_serve.http.access_log import log_access
from arraylstm_serve.http.request import REQUEST_ID, Call
from arraylstm_serve.http.uvicorn_hooks import REFUSED, has_gone, send_whole
from arraylstm_serve.sessions.service import Service

CLIENT_GONE = 499
"""The status, nginx's, of an answer that nobody was there to hear."""

OTHER = "other"
"""The route of requests that no operation answers."""

_JSON_HEAD = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"


class Exchange:
    """An HTTP request and the answer on its way.

    Attributes:
        route: the path of the operation, as the metrics call it.
        status: the answer's, 499 while the client has none.
    """

    __slots__ = ("_call", "_receive", "_scope", "_send", "_service", "route", "status")

    def __init__(self, service: Service, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        self._service = service
        self._call = call
        self._scope = scope
        self._receive = receive
        self._send = send
        self.route = ""
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        """Pass a message on; the answer's head gets the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID, self._call.request_id)]
        await self._send(message)
        if has_gone(self._receive):
            self.status = CLIENT_GONE

    async def answer(self, body: bytes) -> None:
        """Answer with JSON and status 200."""
        if send_whole(self._send, _JSON_HEAD % (len(body), self._call.request_id), body):
            self.status = 200
            return
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        """Count and log the exchange."""
        if self.status == CLIENT_GONE:
            self.status = self._scope.get(REFUSED, CLIENT_GONE)
        route = self.route or getattr(self._scope.get("route"), "path", OTHER)
        record(self._service, self._call, self._scope, route, self.status)


def record(service: Service, call: Call, scope: Scope, route: str, status: int) -> None:
    """Count an answer, and log it where that is wanted."""
    seconds = perf_counter() - call.arrived
    service.figures.answered(route, status, seconds)
    if service.settings.access_log:
        log_access(scope, call, status, seconds)


def problem_response(problem: Problem) -> Response:
    """A problem as a Starlette response."""
    return Response(problem.body(), status_code=problem.kind.status, headers=problem.headers, media_type=MEDIA_TYPE)


def json_response(body: bytes, status: int = 200) -> Response:
    """Encoded JSON as a Starlette response."""
    return Response(body, status_code=status, media_type=JSON)
