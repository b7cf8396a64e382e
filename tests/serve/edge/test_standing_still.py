"""Every connection has a clock in every phase: whatever it does not do, its place is free again."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, suppress
from time import monotonic, sleep

import httpx
import pytest

from ...servers import ServerProcess, Start
from ..sockets import HEALTH, connect, rest
from .test_handshakes import SHAKE
from .test_streams import PING, frame

PAGE = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"

PHASES = {
    "nothing": b"",
    "a head": HEALTH[:-2],
    "a body": b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{",
    "a chunk": b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    "a trailer": b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: ",
    "an ignored offer": PAGE + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n",
    "the head of a handshake": SHAKE,
    "answers unread": (PAGE + b"\r\n") * 300,
    "answers unread, then the end": (PAGE + b"\r\n") * 100 + PAGE + b"Connection: close\r\n\r\n",
    "idle": HEALTH,
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_connection_that_stands_still_has_an_end(start_server: Start, phase: str) -> None:
    """The only connection allowed stops in this phase; a moment later another one is served."""
    idle = ("--keep-alive", "1") if phase == "idle" else ()
    server = start_server("--request-timeout", "1", "--max-connections", "1", *idle)
    with closing(connect(server)) as client:
        client.sendall(PHASES[phase])
        assert served(server)


def test_a_stream_in_pings_has_an_end(start_server: Start) -> None:
    """So does a WebSocket that is not read."""
    server = start_server("--request-timeout", "1", "--max-connections", "1")
    with closing(connect(server)) as client:
        client.sendall(SHAKE + b"\r\n" + frame(PING, b"x" * 125) * 900)
        client.sendall(frame(1, b'{"session_id":"u","items":["a"],"top_k":7}') * 30_000)
        assert served(server)


@pytest.mark.parametrize("fin", [0, 0x80], ids=["fragments", "one frame"])
def test_a_message_that_does_not_end_has_an_end(start_server: Start, fin: int) -> None:
    """A WebSocket whose message has begun and not ended is closed, however long the message may be."""
    server = start_server("--request-timeout", "1", "--max-connections", "1", "--max-body", "1000000")
    with closing(connect(server)) as client:
        client.sendall(SHAKE + b"\r\n")
        client.sendall(bytes([fin | 1, 0xFF]) + (900_000).to_bytes(8) + bytes(4) + b"x" * 500_000)
        assert served(server)


def test_messages_that_do_not_end_have_a_bound_together(start_server: Start) -> None:
    """If unfinished messages take more than --max-body-bytes, the connections end whose messages began first."""
    server = start_server("--max-body-bytes", str(2**20), "--max-body", "400000")
    part = bytes([0x81, 0xFF]) + (390_000).to_bytes(8) + bytes(4) + b"x" * 380_000
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server))) for _ in range(6)]
        for client in clients:
            client.sendall(SHAKE + b"\r\n" + part)
        with suppress(ConnectionResetError):
            rest(clients[0])  # it ends; with a time-out, rest would raise another error
        assert served(server)
        clients[-1].settimeout(0.3)
        with pytest.raises(TimeoutError):
            rest(clients[-1])


def test_a_slow_reader_that_goes_on_gets_everything(start_server: Start) -> None:
    """A client that takes longer than --request-timeout to read an answer, but goes on, is not cut off."""
    server = start_server("--request-timeout", "2", "--max-items", "100000")
    body = b'{"items":[%b]}' % b",".join([b'"a"'] * 20_000)
    with closing(connect(server)) as client:
        client.settimeout(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        received, began = client.recv(8192), monotonic()
        while piece := client.recv(8192):
            received += piece
            if monotonic() - began < 5:
                sleep(0.05)
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.count(b'"item"') == 20_007
    assert received.endswith(b"}")


def served(server: ServerProcess) -> bool:
    """Whether another client is served before long."""
    ends = monotonic() + 20
    while monotonic() < ends:
        try:
            if httpx.get(f"{server.url}/healthz").status_code == 200:
                return True
        except httpx.TransportError:
            continue
    return False
