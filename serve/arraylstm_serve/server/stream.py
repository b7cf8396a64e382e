"""uvicorn's WebSocket protocol with our bounds on what a client may send and how long it may not read."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from arraylstm_serve.fairness import client_at
from arraylstm_serve.http.auth import Key
from arraylstm_serve.http.request import CONNECTION
from arraylstm_serve.http.uvicorn_hooks import GOING_DOWN, KEY, KEY_REMOVED
from arraylstm_serve.server.config import Config
from arraylstm_serve.server.unread import Patience, of_reader
from arraylstm_serve.sessions.limits import Connection

SLICE = 512
"""Most bytes to parse at a time. A frame has at least 6, so a slice takes about a millisecond at worst."""

BURST, RATE = 250, 50
"""Frames without a message that a client may send at once, and a second in the long run.

Control frames are such, and fragments of less than SMALL bytes. Each message gives FREE of them back, so that clients
may send their messages in pieces.
"""

SMALL, FREE = 256, 64

PARTS = 16_384
"""Bytes by which an unfinished message may grow before what all of them have is counted again."""


class StreamProtocol(WebSocketsSansIOProtocol):
    """WebSocket. When the server stops, the application answers the messages under way, then closes the connection.

    uvicorn parses all that comes at once. Here a slice is parsed; the rest is held until the application has taken the
    slice's messages and the client has read the answers, and meanwhile no more is read.
    """

    config: Config

    _held = b""
    """Bytes that are not parsed yet; those before `_parsed` are."""
    _parsed = 0
    _resting = False
    """Whether the next slice waits for its turn."""
    _allowance = float(BURST)
    """Frames without a message that the client may send now; the time of `_counted` is when it was so."""
    _counted = 0.0
    _unread: Patience
    """Runs while the client does not read."""
    _unfinished: Patience
    """Runs while a message has begun and not ended."""
    _begun = 0
    """Bytes that have come since the last message ended."""
    _leaving: int | None = None
    """The close code of a connection that ends once the application has all that is held."""
    counted: Connection | None = None
    """This connection, as the bounds count it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection over."""
        super().connection_made(transport)
        config = self.config
        self._unread = of_reader(transport, config.unread, config.request_timeout)
        self._unfinished = Patience(
            transport, config.unfinished, lambda: 0, lambda: self._begun, config.request_timeout
        )

    def begin(self, head: bytes, rest: bytes) -> bool:
        """Take a handshake, and what came behind it; return whether it can be read."""
        super().data_received(head)
        self._held = rest
        return self.handshake_initiated

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake, or refuse an invalid one."""
        super().handle_connect(event)
        if self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.config.counters.refused(self.response.status_code)
        else:
            self.scope[CONNECTION] = self.counted  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._held = b""
        self._unread.end()
        self._unfinished.end()
        if self.counted is not None:
            self.counted.close()
        super().connection_lost(exc)

    # -- bytes

    def data_received(self, data: bytes) -> None:
        """Parse what came, a slice at a time."""
        if not self._held and len(data) <= SLICE and self._ready:
            self._parse(data)
            return
        if self._held:
            self._held = self._held[self._parsed :] + data
            self._parsed = 0
        else:
            self._held = data
        if self._resting:
            self._pause()
        else:
            self._go_on()

    @property
    def _ready(self) -> bool:
        """Whether more can be taken: the messages are with the application, and the client reads."""
        return (
            self.handshake_complete
            and self.writable.is_set()
            and not self._resting
            and (self.close_sent or self.queue.empty())
        )

    def _go_on(self) -> None:
        """Parse what is held, as far as it can be taken; read on once nothing is held."""
        while self._parsed < len(self._held) and self._ready and not self.transport.is_closing():
            start, self._parsed = self._parsed, self._parsed + SLICE
            self._parse(self._held[start : self._parsed])
        if self._parsed < len(self._held):
            self._pause()
        else:
            self._held, self._parsed = b"", 0
            if self._leaving is not None:
                self._leave(self._leaving)
                self._leaving = None
            elif self.read_paused and self._ready:
                self.read_paused = False
                self.transport.resume_reading()

    def _parse(self, piece: bytes) -> None:
        """Parse a piece; a message that it begins has to end in time."""
        before = self._begun
        self._begun += len(piece)
        super().data_received(piece)
        if not self._begun:
            self._unfinished.end()
            return
        self._unfinished.begin()
        if before // PARTS != self._begun // PARTS:
            self._unfinished.count()

    def _pause(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _rest(self) -> None:
        """Go on in a turn of its own."""
        if not self._resting:
            self._resting = True
            self.config.heavy.call(client_at(self.client), self._rested)

    def _rested(self) -> None:
        self._resting = False
        if not self.transport.is_closing():
            self._go_on()

    async def receive(self) -> ASGIReceiveEvent:
        """Give the application the next message; once it has all of them, go on."""
        message = await self.queue.get()
        if self.queue.empty() and (self._held or self.read_paused):
            self._go_on()
        return message

    # -- frames

    def handle_ping(self) -> None:
        """Answer a ping."""
        if self._count():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Take the answer to a ping."""
        if self._count():
            super().handle_pong(event)

    def handle_text(self, event: Frame) -> None:
        """Take a message in text, or its beginning."""
        if self._count_data(event):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take a binary message, or its beginning."""
        if self._count_data(event):
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a message's next fragment."""
        if self._count_data(event):
            super().handle_cont(event)

    def _count_data(self, frame: Frame) -> bool:
        """Count a frame with data: a small fragment as one without a message."""
        if frame.fin and not self.close_sent:
            self._begun = 0
            if self._allowance < BURST:
                self._allowance = min(BURST, self._allowance + FREE)
        elif len(frame.data) < SMALL or self.close_sent:
            return self._count()
        return not self.transport.is_closing()

    def _count(self) -> bool:
        """Count a frame without a message; end the connection if there are too many. Whether it goes on."""
        if self.transport.is_closing():
            return False
        now = self.loop.time()
        self._allowance = min(BURST, self._allowance + RATE * (now - self._counted)) - 1
        self._counted = now
        self._rest()
        if self._allowance >= 0:
            return True
        self.conn.fail(CloseCode.POLICY_VIOLATION, "too many control frames or small fragments")
        self.handle_parser_exception()
        return False

    # -- writing

    def pause_writing(self) -> None:
        """Read no more from a client that does not read its answers, and start its clock."""
        super().pause_writing()
        self._pause()
        self._unread.begin()

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        self._unread.end()
        super().resume_writing()
        self._go_on()

    async def send(self, message: ASGISendEvent) -> None:
        """Send. A refusal over HTTP ends the handshake too; uvicorn would call it incomplete and log an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
        elif self._held:
            self._go_on()

    def shutdown(self) -> None:
        """Tell the application that the server stops; end a handshake that is not complete."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
        else:
            self._leave(GOING_DOWN)

    def heed_key(self) -> None:
        """Tell the application to close a connection whose API key is no longer accepted."""
        key = self.scope.get(KEY) if self.handshake_complete and not self.close_sent else None
        if isinstance(key, Key) and key.revoked:
            self._leave(KEY_REMOVED)

    def _leave(self, code: int) -> None:
        """Tell the application, behind the messages that have come, to close the connection."""
        if self._held:
            self._leaving = code
        else:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
