"""Raw bytes for a server: requests, frames, and connections of asyncio that read only when told to."""

import json
import re
import socket
import ssl
import struct
from asyncio import get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
EVENTS, BULK, STREAM = "/v1/sessions/{}/events", "/v1/events", "/v1/stream"
TEXT, CONTINUATION, PING = 1, 0, 9
SMALL_WINDOW = 4096
"""Bytes that the kernel is to keep for a client that does not read; what is beyond stays with the server."""

_PIECE = 262_144
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A server, and what a client has to know to talk to it."""

    port: int
    items: tuple[Any, ...]
    """Some items of the model."""
    key: str | None = None
    """The client's API key."""
    certificate: Path | None = None
    """The server's certificate, if it speaks TLS."""

    def get(self, path: str) -> bytes:
        """Return a whole request without a body."""
        return self.head("GET", path) + b"\r\n"

    def post(self, path: str, document: object, *headers: str) -> bytes:
        """Return a whole request that posts JSON."""
        return self.upload(path, packed(document), *headers)

    def upload(self, path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
        """Return a whole request that posts bytes, or puts them."""
        return self.head(method, path, f"Content-Length: {len(body)}", *headers) + b"\r\n" + body

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """Return the head of a request, without the blank line at its end."""
        key = [f"X-API-Key: {self.key}"] if self.key else []
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", *key, *headers]
        return "".join(f"{line}\r\n" for line in lines).encode()

    def handshake(self, *headers: str, method: str = "GET") -> bytes:
        """Return the head of a WebSocket handshake, without the blank line at its end."""
        offer = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        return self.head(method, STREAM, *offer, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers)

    def context(self) -> ssl.SSLContext | None:
        """Return a client's trust in the server's certificate, or None if it speaks no TLS."""
        return None if self.certificate is None else ssl.create_default_context(cafile=self.certificate)

    @asynccontextmanager
    async def connected(self, window: int | None = None) -> AsyncIterator["Connection"]:
        """Yield an unencrypted connection, which is closed at the end of the context.

        Args:
            window: bytes that the kernel is to keep of what is not read; None for its own choice.
        """
        with socket.socket() as plug:
            plug.setblocking(False)
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if window is not None:
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            await get_running_loop().sock_connect(plug, (HOST, self.port))
            yield Connection(plug)

    @asynccontextmanager
    async def streaming(self, window: int | None = None) -> AsyncIterator["Connection"]:
        """Yield a WebSocket."""
        async with self.connected(window) as connection:
            await connection.send(self.handshake() + b"\r\n")
            while b"\r\n\r\n" not in await connection.receive():
                pass
            yield connection


class Connection:
    """A connection whose client reads only by asking for it."""

    def __init__(self, plug: socket.socket) -> None:
        self._socket, self._loop = plug, get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send, for as long as it takes."""
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """Return what comes next; raises ConnectionError when the server hangs up."""
        data = await self._loop.sock_recv(self._socket, _PIECE)
        if not data:
            raise ConnectionResetError("the server has hung up")
        return data

    async def ask(self, request: bytes) -> bytes:
        """Send a request; return the body of its answer."""
        await self.send(request)
        return await self.answer()

    async def answer(self) -> bytes:
        """Read one answer to its end; return its body."""
        received = await self.receive()
        while b"\r\n\r\n" not in received:
            received += await self.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        pieces, left = [body], body_length(head) - len(body)
        while left > 0:
            pieces.append(await self.receive())
            left -= len(pieces[-1])
        return b"".join(pieces)

    async def ignore(self) -> None:
        """Read and drop everything until the server hangs up."""
        while True:
            await self.receive()

    async def repeat(self, data: bytes) -> None:
        """Send the same again and again, and read nothing."""
        while True:
            await self.send(data)

    def end(self) -> None:
        """Say that nothing more will be sent, and stay open for reading."""
        self._socket.shutdown(socket.SHUT_WR)


def body_length(head: bytes) -> int:
    """Return how many bytes of body follow the head of an answer."""
    length = _LENGTH.search(head)
    return int(length[1]) if length else 0


def packed(document: object) -> bytes:
    """Return JSON without blanks."""
    return json.dumps(document, separators=(",", ":")).encode()


def frame(code: int, content: bytes = b"", *, last: bool = True) -> bytes:
    """Return a client's WebSocket frame, its mask zero."""
    size = len(content)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([code | 0x80 * last]) + length + bytes(4) + content
