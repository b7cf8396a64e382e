"""A proxy before a real server that loses, delays and refuses, as networks and gateways do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO, Self


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with one request, or with one WebSocket.

    Attributes:
        status: answered instead of asking the server.
        headers: of that answer.
        body: of that answer.
        applied: run once the server has answered, before the answer is lost.
        lose: whether the client gets no answer, the connection being closed.
        hold: whether the client gets no answer, the connection staying open until the proxy ends.
        frames: how many messages a WebSocket gives to the client before the next ones are lost.
        lost: how many messages are lost before the connection is.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    applied: Callable[[], object] = lambda: None
    lose: bool = False
    hold: bool = False
    frames: int | None = None
    lost: int = 1


class FlakyProxy(ThreadingHTTPServer):
    """Passes requests on, each with the next fault while there are any.

    Attributes:
        upstream: the port of the server; a test may move it.
        faults: what goes wrong with the next requests.
        requests: method, path and idempotency key of each request that came.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: int, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.upstream = upstream
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, str, str | None]] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave when they like."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Pass a request on."""
        server = self.server
        server.requests.append((self.command, self.path, self.headers.get("Idempotency-Key")))
        fault = server.faults.popleft() if server.faults else Fault()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault.status is not None:
            self._answer(fault.status, fault.headers, fault.body)
        elif "Upgrade" in self.headers:
            self._tunnel(fault)
        else:
            self._pass(fault, body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def _pass(self, fault: Fault, body: bytes) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        upstream.request(self.command, self.path, body, dict(self.headers))
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        fault.applied()
        if fault.hold:
            self.server.over.wait(60)
        self.close_connection = fault.lose or fault.hold
        if not self.close_connection:
            self._answer(response.status, dict(response.headers), content)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding"):
                self.send_header(name, value)
        if status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _tunnel(self, fault: Fault) -> None:
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            head = f"{self.requestline}\r\n{self.headers}".replace("\r\n", "\n").replace("\n", "\r\n")
            upstream.sendall(head.encode())
            upward = threading.Thread(target=self._pump_up, args=(upstream,), daemon=True)
            upward.start()
            self._pump_down(upstream.makefile("rb"), fault)
            for side in (upstream, self.connection):
                shut(side)
            upward.join()
        self.close_connection = True

    def _pump_up(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while chunk := self.rfile.read1(65536):
                upstream.sendall(chunk)
        shut(upstream)

    def _pump_down(self, upstream: BinaryIO, fault: Fault) -> None:
        with suppress(OSError):
            while (line := upstream.readline()) != b"\r\n":
                self.wfile.write(line)
            self.wfile.write(line)
            passed = 0
            while frame := read_frame(upstream):
                passed += 1
                if fault.frames is None or passed <= fault.frames:
                    self.wfile.write(frame)
                elif passed >= fault.frames + fault.lost:
                    fault.applied()
                    return


def read_frame(stream: BinaryIO) -> bytes:
    """One frame as servers send it; nothing at the end."""
    head = stream.read(2)
    if len(head) < 2:
        return b""
    extended = stream.read({126: 2, 127: 8}.get(head[1], 0))
    return head + extended + stream.read(int.from_bytes(extended) if extended else head[1])


def shut(side: socket.socket) -> None:
    """Let nothing through any more."""
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
