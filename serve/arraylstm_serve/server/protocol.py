"""uvicorn's protocols with our bounds on connections and requests. What overrides uvicorn is here."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Scope
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
from arraylstm_serve.counters import Counters
from arraylstm_serve.http.request import REQUEST_ID, new_request_id
from arraylstm_serve.http.uvicorn_hooks import CYCLE, GOING_DOWN, REFUSED
from arraylstm_serve.settings import Settings

MAX_HEAD = 65_536
"""Most bytes that a request's path and headers may have; also most that may come before they are complete."""

LINGER = 1.0
"""Seconds that a refused connection stays open, so that a client that is still sending can read the refusal."""


class Config(uvicorn.Config):
    """uvicorn's settings, and what our protocols need beyond them.

    Args:
        app: the application.
        settings: the bounds on connections.
        counters: they count the refusals that the application does not see.
        options: uvicorn's own.
    """

    def __init__(self, app: ASGIApp, settings: Settings, counters: Counters, **options: Any) -> None:
        super().__init__(app, **options)
        self.max_connections = settings.max_connections
        self.request_timeout = settings.request_timeout
        self.counters = counters


class Phase(Enum):
    """What a connection's client is sending."""

    NO_REQUEST = auto()
    """Nothing: no request has begun, or the last one has come in whole."""

    HEAD = auto()
    """A request's path and headers."""

    BODY = auto()
    """A request's body, and the trailer after it."""

    OVER = auto()
    """Nothing that is still read: the connection was refused, or is a WebSocket by now."""


NO_REQUEST, HEAD, BODY, OVER = Phase
"""As names of the module: on Python 3.11 `Phase.HEAD` takes 0.3 us, and a request looks at its phase several times."""


class Protocol(HttpToolsProtocol):
    """HTTP, with bounds on what a client may send and how long it may take; refusals are the API's problems.

    Two clocks of `request_timeout` seconds run. `_clock` runs while the client has to send something: in the phases
    HEAD and BODY, and in NO_REQUEST on a new connection. `_unread_clock` runs while the client does not read its
    answers.
    """

    config: Config

    _phase = NO_REQUEST
    _head_bytes = 0
    """Bytes received since the last body or request ended. Bytes in the same piece as that end are not counted."""
    _largest_piece = 0
    """Bytes of the largest piece received; `_head_bytes` is at most this much too small."""
    _running: RequestResponseCycle | None = None
    """The request that the application got last. `cycle` is the one received last; `pipeline` has those between."""
    _clock: asyncio.TimerHandle | None = None
    _unread_clock: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Accept a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        most = self.config.max_connections
        if len(self.connections) > most:
            self.connections.discard(self)  # a refused connection takes nobody's place while it lingers
            self.refuse(retry_later(OVERLOADED, f"{most} connections are open, as many as are allowed."))
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        self.resume_writing()
        super().connection_lost(exc)
        self._drop_requests()

    def data_received(self, data: bytes) -> None:
        """Parse what came. Ignore it after a refusal; refuse a head or a trailer of more than MAX_HEAD bytes."""
        if self._phase is OVER:
            return
        self._head_bytes += len(data)
        if len(data) > self._largest_piece:
            self._largest_piece = len(data)
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """After each piece: end a connection that has sent too much, or start the clock."""
        if self._phase is OVER:
            return
        if self._head_bytes > MAX_HEAD and (
            self._phase is HEAD or self.cycle is None or not self.cycle.response_started
        ):
            self.send_400_response("")
        elif self._head_bytes > MAX_HEAD:  # the endless trailer of a request that has been answered
            self.transport.close()
        elif self._clock is None and (self._phase is not NO_REQUEST or not self._answering):
            self._start_clock()

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read its answers."""
        super().pause_writing()
        if self._unread_clock is None:
            self._unread_clock = self.loop.call_later(self.config.request_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock of a client that reads again."""
        if self._unread_clock is not None:
            self._unread_clock.cancel()
            self._unread_clock = None
        super().resume_writing()

    # -- requests, as the parser finds them

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._phase = HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; ignore those in a trailer."""
        if self._phase is HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application.

        Raises:
            ValueError: the head has more than MAX_HEAD bytes, which is found here if it came in one piece. The parser
                then fails.
        """
        self._phase = BODY
        if self._head_bytes + self._largest_piece > MAX_HEAD and self._head_size() > MAX_HEAD:
            raise ValueError(MAX_HEAD)
        super().on_headers_complete()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; the head's bytes are counted from here again."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: it has come in whole, so the clock stops."""
        self._phase = NO_REQUEST
        self._head_bytes = 0
        if self._clock is not None:
            self._stop_clock()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to StreamProtocol."""
        self._phase = OVER
        self._stop_clock()
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.scope[CYCLE] = cycle  # type: ignore[literal-required] # not among the names that ASGI has
        super()._start_asgi_task(cycle, app)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # -- refusals

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP, or a head of more than MAX_HEAD bytes."""
        detail = f"The bytes sent are not HTTP/1.1, or the path and headers have more than {MAX_HEAD} bytes."
        self.refuse(Problem(MALFORMED_REQUEST, detail))

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem and close the connection. Requests still waiting for an answer get none."""
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
            self.config.counters.refused(kind.status)
        else:  # the application counts it
            cast(Scope, self._running.scope)[REFUSED] = kind.status
        self._drop_requests()
        self._phase = OVER
        self._stop_clock()
        self.loop.call_later(LINGER, self.transport.close)
        self.loop.call_later(2 * LINGER, self.transport.abort)  # with TLS, close waits for the client

    def _drop_requests(self) -> None:
        """Tell the running request that its client has gone, and start none of those behind it."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True

    # -- the clock

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.config.request_timeout, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        """Refuse a request that did not come in whole in time; close a connection without one."""
        self._clock = None
        if self.transport.is_closing():
            return
        in_head, in_body = self._phase is HEAD, self._phase is BODY
        if (in_head and self._answering) or self.pipeline:
            self._start_clock()  # the client may be waiting for the answer to an earlier request
        elif in_head or (in_body and not self.cycle.response_started):
            detail = f"The request did not come in whole within {self.config.request_timeout} s."
            self.refuse(Problem(REQUEST_TIMEOUT, detail))
        else:
            self.transport.close()


class StreamProtocol(WebSocketsSansIOProtocol):
    """WebSocket. When the server stops, the application answers the messages under way, then closes the connection."""

    config: Config

    async def send(self, message: ASGISendEvent) -> None:
        """Send. A refusal over HTTP ends the handshake too; uvicorn would call it incomplete and log an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake, or refuse an invalid one."""
        super().handle_connect(event)
        if self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.config.counters.refused(self.response.status_code)

    def shutdown(self) -> None:
        """Tell the application that the server stops; end a handshake that is not complete."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_DOWN})
        else:
            super().shutdown()
