"""A connection's bytes made into requests: few of them wait at a time, and offers to change the protocol do no harm."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from arraylstm_serve.api.problems import Problem
from arraylstm_serve.fairness import client_at
from arraylstm_serve.heavy import LIGHT_BODY
from arraylstm_serve.http.request import CONNECTION
from arraylstm_serve.http.uvicorn_hooks import CYCLE
from arraylstm_serve.server.config import Config
from arraylstm_serve.server.offers import is_handshake, without_offers
from arraylstm_serve.sessions.limits import Connection

MAX_HEAD = 65_536
"""Most bytes that a request's path and headers may have; also most that may come before they are complete."""

MAX_HEADERS = 128
"""Most headers that a request may have."""

BODY_AHEAD = 16_384
"""Bytes of a body that are kept for an application that has not asked for them, about."""

SLICE = 4096
"""Most bytes to parse at a time."""

CALLS = 128
"""How many headers and pieces of a body a slice may have. After one with more,
the connection's bytes are parsed in turns."""

HEAD_END = b"\r\n\r\n"
STEP = 64
"""Least bytes to parse at a time. A request has more than 20, so no more than three can end in one step."""


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


class Offer(Enum):
    """What becomes of the offer, in the request that is being parsed, to change the protocol."""

    NONE = auto()
    """There is none."""

    IGNORED = auto()
    """The request is parsed again without it."""

    TAKEN = auto()
    """The request is a WebSocket handshake."""


NO_OFFER, IGNORED, TAKEN = Offer


class Flow(FlowControl):
    """Flow control that does not read on while bytes are held: a request that asks for its body would do so."""

    holding = False

    def resume_reading(self) -> None:
        """Read on, unless bytes are held."""
        if not self.holding:
            super().resume_reading()


class Requests(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which parses no further than the answers are.

    uvicorn parses all that comes, and keeps an object for each request. Here bytes behind an unanswered request are
    held as they are, and no more are read.

    The parser, llhttp as httptools binds it, takes a request with any `Upgrade` for the end of HTTP and skips its body.
    If the offer is to be ignored, a new parser therefore gets the same request without the offer.
    """

    config: Config

    _phase = NO_REQUEST
    _offer = NO_OFFER
    _hosts = 0
    """Host headers of the request that is being parsed."""
    _head_bytes = 0
    """Bytes received since the last body or request ended. Bytes in the same piece as that end are not counted."""
    _largest_piece = 0
    """Bytes of the largest piece received; `_head_bytes` is at most this much too small."""
    _held = b""
    """Bytes that wait until earlier requests are answered; those before `_parsed` are parsed already."""
    _parsed = 0
    _running: RequestResponseCycle | None = None
    """The request that the application got last. `cycle` is the one received last; `pipeline` has those between."""
    _clock: asyncio.TimerHandle | None = None
    """Runs while the client has to send something."""
    _stopping = False
    """Whether the server stops, so that this connection ends with the answer to the request that has come."""
    counted: Connection | None = None
    """This connection, as the bounds count it; None before, and if it is refused."""
    _calls = 0
    """Headers and pieces of a body in the piece that was parsed last."""
    _laborious = False
    """Whether the client has sent so many of them that its bytes are parsed in turns."""
    _body_bytes = 0
    """Bytes of the request's body that have come."""
    _resting = False
    """Whether the next piece waits for its turn."""
    _fault = ""
    """What is wrong with the head being parsed, if it is anything but its syntax."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection."""
        super().connection_made(transport)
        self.flow = Flow(transport)

    # -- what subclasses do

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem and close the connection."""
        raise NotImplementedError

    def watch(self) -> None:
        """Look after the connection, after each piece of bytes."""
        raise NotImplementedError

    def stop_clock(self) -> None:
        """Stop the clock that runs while the client has to send something."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    # -- bytes

    def data_received(self, data: bytes) -> None:
        """Parse what came, or hold it until earlier requests are answered."""
        if self._phase is OVER:
            return
        self._unset_keepalive_if_required()
        long = self._laborious or self._body_bytes > LIGHT_BODY
        if self._held or self._busy or long or len(data) > SLICE or data.count(HEAD_END) > 1:
            self._held += data
            if long:
                self._rest()
            else:
                self._go_on()
        else:
            self._parse(data)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _busy(self) -> bool:
        """Whether what comes now has to wait."""
        return (
            bool(self.pipeline)
            or self._resting
            or self._offer is TAKEN
            or (self._phase is NO_REQUEST and (self._answering or self.flow.write_paused))
        )

    def _go_on(self) -> None:
        """Parse what is held, as far as nothing has to wait for an answer. Read on once nothing is held."""
        while self._parsed < len(self._held) and not self._busy and self._phase is not OVER:
            start = self._parsed
            end = min(start + SLICE, len(self._held))
            found = self._held.find(HEAD_END, start + STEP, end)
            self._parsed = end if found < 0 else found + len(HEAD_END)
            self._parse(self._held[start : self._parsed])
        holding = self._parsed < len(self._held) and self._phase is not OVER
        if not holding:
            self._held, self._parsed = b"", 0
        self._hold(holding or self._resting)

    def _hold(self, holding: bool) -> None:
        """Read no more, or read on."""
        flow = self.flow
        assert isinstance(flow, Flow)
        flow.holding = holding
        if holding:
            flow.pause_reading()
        elif not (self.pipeline or self._ahead):
            flow.resume_reading()

    @property
    def _ahead(self) -> bool:
        """Whether so much of a body has come before the application has asked for it that no more is read."""
        return self._answering and len(self.cycle.body) > BODY_AHEAD

    def _upgrade(self) -> None:
        """Begin a WebSocket in a turn of its own: a handshake takes as long as some requests."""
        self.config.heavy.call(client_at(self.client), self._upgraded)

    def _upgraded(self) -> None:
        if self._phase is not OVER and not self.transport.is_closing():
            self.handle_websocket_upgrade()

    def _rest(self) -> None:
        """Go on in a turn of its own; read no more until then."""
        if not self._resting:
            self._resting = True
            self._hold(True)
            self.config.heavy.call(client_at(self.client), self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._phase is not OVER and not self.transport.is_closing():
            self._go_on()

    def _parse(self, piece: bytes) -> None:
        """Parse a piece; refuse what is not HTTP."""
        self._calls = 0
        self._head_bytes += len(piece)
        if len(piece) > self._largest_piece:
            self._largest_piece = len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as offer:
            self._end_of_http(piece[offer.args[0] :])
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response(self._fault)
        if self._calls > CALLS:
            self._laborious = True
            self._rest()
        self.watch()

    def _end_of_http(self, rest: bytes) -> None:
        """Begin a WebSocket, or parse a request again without its offer.

        Args:
            rest: what came behind the request's head.
        """
        if self._offer is TAKEN:
            self._held, self._parsed = rest + self._held[self._parsed :], 0
            if self._answering:
                self._go_on()
            else:
                self._upgrade()
            return
        version = self.parser.get_http_version()
        head = without_offers(self.parser.get_method(), self.url, version, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._head_bytes = 0
        self._parse(head + rest)

    # -- requests, as the parser finds them

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._phase = HEAD
        self._offer = NO_OFFER
        self._hosts = 0
        self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; ignore those in a trailer.

        Raises:
            ValueError: there are too many.
        """
        self._calls += 1
        if self._phase is not HEAD:
            return
        if len(self.headers) == MAX_HEADERS:
            raise self._refused(f"A request may have {MAX_HEADERS} headers; this one has more.")
        name = name.lower()
        self.headers.append((name, value))
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless it is a WebSocket handshake.

        Raises:
            ValueError: the request is to be refused for its head. The parser then fails.
        """
        self._phase = BODY
        self._check_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise self._refused("CONNECT is for proxies; this server is none.")
            taken = is_handshake(self.parser.get_method(), self.parser.get_http_version(), self.headers)
            self._offer = TAKEN if taken else IGNORED
        else:
            super().on_headers_complete()
            if self._stopping:
                self.cycle.keep_alive = False

    def _check_head(self) -> None:
        if self._head_bytes + self._largest_piece > MAX_HEAD and self._head_size() > MAX_HEAD:
            raise self._refused("")  # it came in one piece
        if self._hosts != 1 and (self._hosts or self.parser.get_http_version() != "1.0"):
            raise self._refused(f"A request must have one Host header; this one has {self._hosts or 'none'}.")

    def _refused(self, fault: str) -> ValueError:
        """Note what is wrong with a head, for the refusal."""
        self._fault = fault
        return ValueError(fault)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; the head's bytes are counted from here again."""
        self._head_bytes = 0
        self._calls += 1
        self._body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if self._ahead:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End a request: it has come in whole, so the clock stops."""
        if self._offer is IGNORED:  # it is still to come
            return
        self._phase = NO_REQUEST
        self._head_bytes = 0
        if self._clock is not None:
            self.stop_clock()
        if self._offer is NO_OFFER:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.scope[CYCLE] = cycle  # type: ignore[literal-required] # not among the names that ASGI has
        cycle.scope[CONNECTION] = self.counted  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Begin the next request, or go on with what is held."""
        super().on_response_complete()
        if self._offer is TAKEN or self._held:
            self.loop.call_soon(self._after_answer)

    def _after_answer(self) -> None:
        if self._phase is OVER or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._offer is TAKEN and not self._answering:
            self._upgrade()
        else:
            self._go_on()
