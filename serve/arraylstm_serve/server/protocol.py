"""uvicorn's HTTP with our bounds on connections and requests. What overrides uvicorn is here and in `stream`."""

from __future__ import annotations

import asyncio
import select
import selectors
import sys
from contextlib import suppress
from typing import cast

from starlette.types import Scope
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from arraylstm_serve.api.problems import (
    MALFORMED_REQUEST,
    MEDIA_TYPE,
    REQUEST_TIMEOUT,
    Problem,
)
from arraylstm_serve.heavy import LIGHT_BODY
from arraylstm_serve.http.request import REQUEST_ID, new_request_id
from arraylstm_serve.http.uvicorn_hooks import REFUSED
from arraylstm_serve.server.config import MOST_REFUSED
from arraylstm_serve.server.offers import handshake
from arraylstm_serve.server.requests import BODY, HEAD, MAX_HEAD, NO_REQUEST, OVER, Requests
from arraylstm_serve.server.stream import StreamProtocol
from arraylstm_serve.server.unread import WRITE_BUFFER, Patience, of_reader

LINGER = 1.0
"""Seconds that a refused connection stays open, so that a client that is still sending can read the refusal."""

SELECTOR = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""Tells whether a socket can be read. Windows has no poll; elsewhere select takes no numbers over 1023."""

A_MOMENT = 0.05
"""Seconds in which the loop reads what has come already."""


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""An interim answer, which clients ignore (RFC 9110, section 15.2.1); the machine of one that is gone refuses it."""

FIRST_PAUSE = 0.001
"""Seconds between the first two looks whether a client is gone; each further pause is four times as long."""

GONE = getattr(select, "POLLERR", 0) | (getattr(select, "POLLHUP", 0) if sys.platform == "linux" else 0)
"""The events that a client has closed or reset its connection. Windows has none.

On macOS and BSD a hang-up is also told of a client that will send no more and still reads.
"""

ENDED = getattr(select, "POLLRDHUP", 0)  # Linux alone has it
"""The event that a client will send no more, though what it has sent may not be read yet."""


def state_of(transport: asyncio.BaseTransport, events: int) -> int:
    """Return those of some events of `select.poll` that a connection has now; always told are errors and hang-ups."""
    number = transport.get_extra_info("socket").fileno()
    if number < 0:
        return 0
    if not hasattr(select, "poll"):  # Windows, where nothing but a selector looks at sockets
        with SELECTOR() as selector:
            selector.register(number, selectors.EVENT_READ)
            return int(bool(selector.select(0)))
    poll = select.poll()
    poll.register(number, events)
    return next((seen for _, seen in poll.poll(0)), 0)


def something_came(transport: asyncio.BaseTransport) -> bool:
    """Whether bytes, or the end, of a connection have come that are not read yet."""
    return bool(state_of(transport, getattr(select, "POLLIN", 0)))


class Protocol(Requests):
    """HTTP, with bounds on what a client may send and how long it may take; refusals are the API's problems.

    Two clocks of `request_timeout` seconds run. `_clock` runs while the client has to send something: in the phases
    HEAD and BODY, and in NO_REQUEST on a new connection. `_unread` runs while the client does not read its
    answers. Between requests uvicorn's own clock runs, of `keep_alive` seconds. While the server works on an answer and
    reads no more, it looks from time to time whether the client has gone. `stalls` ends connections that do not close.
    """

    _unread: Patience
    _look: asyncio.TimerHandle | None = None
    """The next look whether the client has gone."""
    _ended = False
    """Whether the client has sent all that it will send."""

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Accept a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_BUFFER)
        self._unread = of_reader(transport, self.config.unread, self.config.request_timeout)
        try:
            if self.counted is None:
                self.counted = self.config.open_connections.open(self.client[0] if self.client else "")
        except Problem as problem:
            self.connections.discard(self)  # a refused connection takes nobody's place while it lingers
            self._turn_away(problem)
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.config.refused.discard(self)
        self.stop_clock()
        self._unread.end()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)
        self._drop_requests()
        if self.counted is not None:
            self.counted.close()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn always closes
        """Answer the requests that have come in whole, though no more will come (RFC 9112, section 9.6); then close.

        Returns:
            Whether the connection stays open. With TLS it cannot.
        """
        running = self._running
        if self._phase is OVER or self.scheme == "https" or running is None:
            return False
        self._ended = not running.response_complete and not running.more_body
        if self._ended:
            last = running if self.cycle.more_body else self.cycle
            last.keep_alive = False
            self._look_soon()
        return self._ended

    def _hold(self, holding: bool) -> None:
        """Read no more, or read on; see `Requests`."""
        super()._hold(holding)
        if self._answering and (holding or self.pipeline):
            self._look_soon()

    def _look_soon(self) -> None:
        """Look whether the client has gone: at once if its request may be much work, else if an answer takes long."""
        self._look_later(0.0 if self._body_bytes > LIGHT_BODY else A_MOMENT)

    def _look_later(self, seconds: float) -> None:
        if self._look is None:
            self._look = self.loop.call_later(seconds, self._seek, max(FIRST_PAUSE, 4 * seconds))

    def _seek(self, pause: float) -> None:
        """Drop the connection if its client is gone. If that cannot be seen, find out by an interim answer.

        A client that sends no more may still read. Only if it does not, its machine refuses what is sent to it.

        Args:
            pause: seconds until the next look.
        """
        self._look = None
        running = self._running
        if self.transport.is_closing() or self._phase is OVER or running is None or running.response_complete:
            return
        state = state_of(self.transport, ENDED)
        if state & GONE:
            self.transport.abort()
            return
        may_ask = not running.response_started and running.scope["http_version"] == "1.1" and self.scheme != "https"
        if may_ask and (self._ended or state & ENDED):
            self.transport.write(CONTINUE)
        self._look_later(pause)

    def watch(self) -> None:
        """End a connection that has sent too much, or start the clock."""
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
        self._unread.begin()

    def resume_writing(self) -> None:
        """Stop the clock of a client that reads again, and go on with what it has sent."""
        self._unread.end()
        super().resume_writing()
        if self._held:
            self.loop.call_soon(self._after_answer)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless a request has come by now."""
        if self.transport.is_closing():
            return
        if something_came(self.transport):
            self.timeout_keep_alive_task = self.loop.call_later(A_MOMENT, self.timeout_keep_alive_handler)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """End the connection once a request that has come is answered."""
        self._stopping = True
        if not self._answering and not self.transport.is_closing() and something_came(self.transport):
            self.loop.call_later(A_MOMENT, self.shutdown)
        else:
            super().shutdown()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to StreamProtocol, or refuse a handshake that it cannot read."""
        self._phase = OVER
        self.stop_clock()
        self._unset_keepalive_if_required()
        stream = StreamProtocol(self.config, self.server_state, self.app_state)
        self.connections.discard(self)
        stream.counted = self.counted
        stream.connection_made(self.transport)
        if stream.begin(handshake(self.url, self.headers), self._held[self._parsed :]):
            self.transport.set_protocol(stream)
            self._hold(False)
            return
        self.connections.discard(stream)
        self.connections.add(self)
        detail = f"A handshake has at most {MAX_NUM_HEADERS} headers, and at most {MAX_LINE_LENGTH} bytes in a line."
        self.refuse(Problem(MALFORMED_REQUEST, detail))

    # -- refusals

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP, or a head of more than MAX_HEAD bytes; or for the reason given."""
        detail = msg or (f"The bytes sent are not HTTP/1.1, or the path and headers have more than {MAX_HEAD} bytes.")
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
            with suppress(OSError):  # asyncio's own loop raises it where the client has reset the connection
                self.transport.write_eof()
        if self._running is None or self._running.response_complete:
            self.config.counters.refused(kind.status)
        else:  # the application counts it
            cast(Scope, self._running.scope)[REFUSED] = kind.status
        self._drop_requests()
        self._phase = OVER
        self.stop_clock()
        self.loop.call_later(LINGER, self.transport.close)
        self.loop.call_later(2 * LINGER, self.transport.abort)  # with TLS, close waits for the client

    def _turn_away(self, problem: Problem) -> None:
        """Refuse a connection, or cut it off if many are being refused."""
        if len(self.config.refused) < MOST_REFUSED:
            self.config.refused.add(self)
            self.refuse(problem)
        else:
            self._phase = OVER
            self.config.counters.refused(problem.kind.status)
            self.transport.abort()

    def _drop_requests(self) -> None:
        """Tell the running request that its client has gone, and start none of those behind it."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True

    # -- the clock

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.config.request_timeout, self._too_slow)

    def _too_slow(self) -> None:
        """Refuse a request that did not come in whole in time; close a connection without one."""
        self._clock = None
        if self.transport.is_closing():
            return
        in_head, in_body = self._phase is HEAD, self._phase is BODY
        if (in_head and self._answering) or self.pipeline or self._held or (in_body and self._ahead):
            self._start_clock()  # the client may wait for the answer to an earlier request, or for the server to read
        elif in_head or (in_body and not self.cycle.response_started):
            detail = f"The request did not come in whole within {self.config.request_timeout} s."
            self.refuse(Problem(REQUEST_TIMEOUT, detail))
        else:
            self.transport.close()
