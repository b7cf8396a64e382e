"""uvicorn's HTTP protocol with bounds of its own: on connections, on heads, on how slowly a request may come."""

from __future__ import annotations

import asyncio
from typing import ClassVar, cast

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from arraylstm_serve.problems import MALFORMED_REQUEST, MEDIA_TYPE, OVERLOADED, REQUEST_TIMEOUT, Problem, retry_later

MAX_HEAD = 65_536
"""Bytes of a request that may come without its headers being complete."""

LINGER = 1.0
"""Seconds that a refused connection stays open, for a client that reads the refusal only after all it has to send."""


def send_whole(send: Send, head: bytes, body: bytes) -> bool:
    """Answer with status 200 in one write, where uvicorn gives the way; else nothing is sent.

    Args:
        send: what the application was given; middleware that has wrapped it must not be passed by.
        head: lines of headers, each with its end.
        body: not empty.

    Returns:
        Whether the answer is sent.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.flow.write_paused:
        return False
    if cycle.disconnected:
        return True
    cycle.response_started = cycle.response_complete = True
    parts = [STATUS_LINE[200]]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (head, b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class Protocol(HttpToolsProtocol):
    """Refuses what it cannot parse, what comes too slowly, and connections beyond a number, in the API's own words."""

    max_connections: ClassVar[int]
    request_timeout: ClassVar[float]

    _head_bytes = 0
    _in_head = False
    _incomplete = False
    _refused = False
    _slow: asyncio.TimerHandle | None = None

    @classmethod
    def bounded(cls, max_connections: int, request_timeout: float) -> type[Protocol]:
        """The protocol with these bounds: connections open at once, and seconds for a request to come in whole."""
        bounds = {"max_connections": max_connections, "request_timeout": request_timeout}
        return cast(type[Protocol], type(cls.__name__, (cls,), bounds))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self.refuse(
                retry_later(OVERLOADED, f"{self.max_connections} connections are open, as many as are allowed.")
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, or drop them after a refusal; a head that goes on beyond MAX_HEAD of them is refused."""
        if self._refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self._refused:
            self.send_400_response("")
        elif self._incomplete and self._slow is None and not self._refused:
            self._slow = self.loop.call_later(self.request_timeout, self._too_slow)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = self._incomplete = True

    def on_headers_complete(self) -> None:
        """Let the request begin."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count the bytes of the next head from here."""
        self._head_bytes = 0
        self._incomplete = False
        if self._slow is not None:
            self._stop_clock()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, or a head longer than MAX_HEAD, and hang up."""
        detail = f"What was sent is not HTTP/1.1, or its path and headers have more than {MAX_HEAD} bytes."
        self.refuse(Problem(MALFORMED_REQUEST, detail))

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem and hang up."""
        body = problem.body()
        kind = problem.kind
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": len(body), "Connection": "close"} | problem.headers
        lines = [f"HTTP/1.1 {kind.status} {kind.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._refused = True
        self.loop.call_later(LINGER, self.transport.close)

    def _too_slow(self) -> None:
        """Refuse a request that did not come in whole in time, unless it has been answered meanwhile."""
        if not self.transport.is_closing() and (self.cycle is None or not self.cycle.response_started):
            self.refuse(Problem(REQUEST_TIMEOUT, f"The request did not come in whole within {self.request_timeout} s."))

    def _stop_clock(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
