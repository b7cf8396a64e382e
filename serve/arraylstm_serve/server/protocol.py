"""uvicorn's protocols with bounds and manners of their own; all that reaches into uvicorn is here."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import ClassVar, cast

from starlette.types import Scope
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from arraylstm_serve.api.problems import (
    MALFORMED_REQUEST,
    MEDIA_TYPE,
    OVERLOADED,
    REQUEST_TIMEOUT,
    Problem,
    retry_later,
)
from arraylstm_serve.counters import Figures
from arraylstm_serve.http.request import REQUEST_ID, new_request_id
from arraylstm_serve.http.uvicorn_hooks import GOING_DOWN, REFUSED

MAX_HEAD = 65_536
"""Bytes of a request's path and headers, and of what may come without their being complete."""

LINGER = 1.0
"""Seconds that a refused connection stays open, for a client that reads the refusal only after all it has to send."""


class Protocol(HttpToolsProtocol):
    """HTTP that refuses what it cannot parse, what is too slow, and connections beyond a number, in the API's words.

    A clock runs whenever a client has to send something, and stops once a request has come in whole.
    """

    figures: ClassVar[Figures]
    max_connections: ClassVar[int]
    request_timeout: ClassVar[float]

    _head_bytes = 0
    _largest = 0
    """Bytes of the largest piece that came; as many `_head_bytes` lacks at most, where a head began amid one."""
    _in_head = False
    _in_request = False
    _over = False
    """Whether the connection was refused, or is a WebSocket by now."""
    _running: RequestResponseCycle | None = None
    """The latest request that the application was given; `cycle` and `pipeline` are what has come behind it since."""
    _clock: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    """Runs while the client does not read what it is sent."""

    @classmethod
    def bounded(cls, figures: Figures, max_connections: int, request_timeout: float) -> type[Protocol]:
        """The protocol with these bounds: connections open at once, and seconds for a request to come in whole."""
        bounds = {"figures": figures, "max_connections": max_connections, "request_timeout": request_timeout}
        return cast(type[Protocol], type(cls.__name__, (cls,), bounds))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)  # it takes nobody's place while it lingers
            self.refuse(
                retry_later(OVERLOADED, f"{self.max_connections} connections are open, as many as are allowed.")
            )
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        self.resume_writing()
        super().connection_lost(exc)
        self._drop_requests()

    def data_received(self, data: bytes) -> None:
        """Take bytes, or drop them after a refusal; a head or a trailer beyond MAX_HEAD of them is refused."""
        if self._over:
            return
        self._head_bytes += len(data)
        if len(data) > self._largest:
            self._largest = len(data)
        super().data_received(data)
        if self._over:
            return
        if self._head_bytes > MAX_HEAD and (self._in_head or self.cycle is None or not self.cycle.response_started):
            self.send_400_response("")
        elif self._head_bytes > MAX_HEAD:  # trailers without end of a request that has been answered
            self.transport.close()
        elif self._clock is None and (self._in_request or not self._answering):
            self._start_clock()

    def pause_writing(self) -> None:
        """Give a client that does not read its time."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.request_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on."""
        self._over = True
        self._stop_clock()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = self._in_request = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes in the trailer is nobody's."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, which is not part of the head."""
        self._head_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Let the request begin.

        Raises:
            ValueError: the head is too long, though it may have come in one piece; the parser then fails.
        """
        self._in_head = False
        if self._head_bytes + self._largest > MAX_HEAD and self._head_size() > MAX_HEAD:
            raise ValueError(MAX_HEAD)
        super().on_headers_complete()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def on_message_complete(self) -> None:
        """Count the bytes of the next head from here."""
        self._head_bytes = 0
        self._in_request = False
        if self._clock is not None:
            self._stop_clock()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, or a head longer than MAX_HEAD, and hang up."""
        detail = f"What was sent is not HTTP/1.1, or its path and headers have more than {MAX_HEAD} bytes."
        self.refuse(Problem(MALFORMED_REQUEST, detail))

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem and hang up; a request under way gets no answer any more."""
        body = problem.body()
        kind = problem.kind
        headers = {
            "Content-Type": MEDIA_TYPE,
            "Content-Length": len(body),
            "Connection": "close",
            REQUEST_ID.decode(): new_request_id().decode(),
        } | problem.headers
        lines = [f"HTTP/1.1 {kind.status} {kind.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._running is None or self._running.response_complete:
            self.figures.refused(kind.status)
        else:
            cast(Scope, self._running.scope)[REFUSED] = kind.status
        self._drop_requests()
        self._over = True
        self._stop_clock()
        self.loop.call_later(LINGER, self.transport.close)
        self.loop.call_later(2 * LINGER, self.transport.abort)  # where it is encrypted, close waits for the client

    def _drop_requests(self) -> None:
        """Let nobody hear the answer to the request under way; those behind it are not begun."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _too_slow(self) -> None:
        """Refuse a request that did not come in whole in time; close a connection that has none to answer."""
        self._clock = None
        if self.transport.is_closing():
            return
        if (self._in_head and self._answering) or self.pipeline:
            self._start_clock()  # the client may be waiting for an answer to an earlier request
        elif self._in_head or (self._in_request and not self.cycle.response_started):
            self.refuse(Problem(REQUEST_TIMEOUT, f"The request did not come in whole within {self.request_timeout} s."))
        else:
            self.transport.close()

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.request_timeout, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


class StreamProtocol(WebSocketsSansIOProtocol):
    """WebSocket. Told to stop, it lets the application answer what is under way and close the connection."""

    figures: ClassVar[Figures]

    @classmethod
    def counted(cls, figures: Figures) -> type[StreamProtocol]:
        """The protocol that counts what it refuses there."""
        return cast(type[StreamProtocol], type(cls.__name__, (cls,), {"figures": figures}))

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a refusal in HTTP is an answer too, which uvicorn would call a handshake left undone."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake, or refuse one that is none."""
        super().handle_connect(event)
        if self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.figures.refused(self.response.status_code)

    def shutdown(self) -> None:
        """Stop to listen."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_DOWN})
        else:
            super().shutdown()
