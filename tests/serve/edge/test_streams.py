"""WebSockets: what carries no message is bounded, and who does not read is let go."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from time import monotonic

import httpx
import pytest

from ...servers import ServerProcess, Start
from ..sockets import connect
from .answers import memory
from .test_handshakes import SHAKE

TEXT, CONTINUATION, PING, PONG = 1, 0, 9, 10
POLICY_VIOLATION = 1008


def frame(code: int, content: bytes = b"", *, last: bool = True) -> bytes:
    """A client's frame, its mask zero."""
    first = bytes([code | 0x80 * last])
    size = len(content)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return first + length + bytes(4) + content


def event(name: str, **fields: object) -> bytes:
    """A message."""
    return json.dumps({"session_id": name, "items": ["a"], "top_k": 0} | fields).encode()


@contextmanager
def stream(server: ServerProcess) -> Iterator[socket.socket]:
    """A WebSocket on a raw connection."""
    with closing(connect(server)) as client:
        client.sendall(SHAKE + b"\r\n")
        assert client.recv(65_536)[9:12] == b"101"
        yield client


FLOODS = {
    "pings": frame(PING, b"x"),
    "pongs": frame(PONG),
    "empty fragments": frame(CONTINUATION, last=False),
    "small fragments": frame(CONTINUATION, b"x" * 9, last=False),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_frames_without_a_message_are_bounded(start_server: Start, kind: str) -> None:
    """A flood of them ends its stream with 1008; another client is answered meanwhile, and memory stays as it is."""
    server = start_server()
    httpx.get(f"{server.url}/healthz")
    before = memory(server)
    with stream(server) as client:
        client.sendall(frame(TEXT, event("u")[:9], last=False))
        with suppress(ConnectionError):
            for _ in range(100):
                client.sendall(FLOODS[kind] * 3000)
                assert httpx.get(f"{server.url}/healthz").status_code == 200
        received = b""
        with suppress(ConnectionError):
            while piece := client.recv(65_536):
                received = (received + piece)[-100_000:]
    if kind in ("pongs", "empty fragments"):  # nothing is answered to them, so that the reason arrives
        assert struct.pack("!H", POLICY_VIOLATION) in received
    assert memory(server) - before < 20e6
    server.process.terminate()
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.process.communicate()[1]


def test_pings_and_fragments_in_measure_are_served(server: ServerProcess) -> None:
    """Hundreds of messages, each with a ping and in ten small fragments, are answered, and so are the pings."""
    with stream(server) as client:
        received = b""
        for number in range(300):
            text = event("measured")
            pieces = [text[start : start + 6] for start in range(0, len(text), 6)]
            client.sendall(frame(TEXT, pieces[0], last=False) + frame(PING, b"%d" % number))
            client.sendall(b"".join(frame(CONTINUATION, piece, last=False) for piece in pieces[1:]))
            client.sendall(frame(CONTINUATION))
            while b'"step":%d,' % (number + 1) not in received:
                piece = client.recv(65_536)
                assert piece
                received += piece
    assert all(bytes([0x8A, len(text)]) + text in received for text in (b"7", b"299"))


def test_a_stream_that_is_not_read_is_ended(start_server: Start) -> None:
    """A client that sends and does not read loses its connection after --request-timeout, pings or messages."""
    server = start_server("--request-timeout", "1", "--max-connections", "2")
    for sent in (frame(TEXT, event("u", top_k=7)), frame(PING, b"x" * 125)):
        with stream(server) as client, pytest.raises(ConnectionError):  # not TimeoutError: the server hangs up
            send_for_ever(client, sent * 50)
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def send_for_ever(client: socket.socket, sent: bytes) -> None:
    """Send the same again and again, and read nothing."""
    while True:
        client.sendall(sent)


@pytest.mark.parametrize("over", ["http", "websocket"])
def test_who_does_not_read_does_not_keep_the_server(start_server: Start, over: str) -> None:
    """Told to stop while a client does not read its answers, the server ends in seconds, status 0, no traceback."""
    server = start_server()
    with stream(server) if over == "websocket" else closing(connect(server)) as client:
        client.settimeout(2)
        request = frame(TEXT, event("u", top_k=7, items=["a"] * 500))
        if over == "http":
            request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with suppress(TimeoutError):
            send_for_ever(client, request * 50)
        began = monotonic()
        server.process.terminate()
        assert server.process.wait(25) == 0
    assert monotonic() - began < 20
    logged = server.process.communicate()[1]
    assert "Traceback" not in logged
    assert "never retrieved" not in logged


def test_answers_that_nobody_reads_leave_no_traceback(start_server: Start) -> None:
    """Refusals still to be sent when the server gives up on their client are no forgotten exceptions."""
    server = start_server("--shutdown-timeout", "1")
    with stream(server) as client:
        client.settimeout(2)
        with suppress(TimeoutError):
            send_for_ever(client, frame(TEXT, b"no json") * 500)
        server.process.terminate()
        assert server.process.wait(20) == 0
    logged = server.process.communicate()[1]
    assert "never retrieved" not in logged
    assert "Traceback" not in logged
