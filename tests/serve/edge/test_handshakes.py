"""WebSocket handshakes: each is answered, in its turn, and none keeps the server from stopping."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing

import pytest

from ...servers import ServerProcess, Start
from ..sockets import BODY, HEAD, HEALTH, answer_to, connect, rest
from .answers import exchange, split

OFFER = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
LINE = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n"
SHAKE = LINE + OFFER + KEY

UNREADABLE = {
    "a long header": SHAKE + b"Cookie: " + b"a" * 9000 + b"\r\n\r\n",
    "a long path": SHAKE.replace(b"stream", b"stream?" + b"a" * 9000) + b"\r\n",
    "many headers": SHAKE + b"X: x\r\n" * 130 + b"\r\n",
}
NO_HANDSHAKES = {
    "a body": (SHAKE + b"Content-Length: 5\r\n\r\nhello", 426),
    "a chunked body": (SHAKE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 426),
    "POST": (SHAKE.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\nhello", 405),
    "POST without a body": (SHAKE.replace(b"GET", b"POST") + b"\r\n", 405),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_handshake_that_cannot_be_read_is_refused(server: ServerProcess, kind: str) -> None:
    """The refusal says what a handshake may have, and the connection ends."""
    (answer,) = exchange(server, UNREADABLE[kind])
    assert (answer.status, json.loads(answer.body)["code"]) == (400, "malformed_request")
    assert b"128 headers" in answer.body


@pytest.mark.parametrize("kind", NO_HANDSHAKES)
def test_what_is_no_handshake_is_a_request(server: ServerProcess, kind: str) -> None:
    """A request with a body or another method is answered as one without the offer; the connection goes on."""
    sent, status = NO_HANDSHAKES[kind]
    with closing(connect(server)) as client:
        assert answer_to(client, sent)[9:12] == b"%d" % status
        assert answer_to(client, HEALTH)[9:12] == b"200"


def test_unreadable_handshakes_keep_nobody_out(start_server: Start) -> None:
    """As many as there may be connections are each refused, and the places are free again."""
    server = start_server("--max-connections", "20", "--forwarded-allow-ips", "127.0.0.1")
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server))) for _ in range(20)]
        for client in clients:
            client.sendall(UNREADABLE["a long header"])
        assert [rest(client)[9:12] for client in clients] == [b"400"] * 20
    with closing(connect(server)) as client:
        assert answer_to(client, HEALTH)[9:12] == b"200"


@pytest.mark.parametrize("kind", [*UNREADABLE, *NO_HANDSHAKES])
def test_the_server_stops_with_one_open(start_server: Start, kind: str) -> None:
    """Told to stop while one is open, the server answers what is in flight and ends with status 0, no traceback."""
    server = start_server()
    body = json.dumps({"items": ["a"] * 1000, "top_k": 0}).encode()
    with closing(connect(server)) as odd, ExitStack() as stack:
        odd.sendall((UNREADABLE | {name: sent for name, (sent, _) in NO_HANDSHAKES.items()})[kind])
        clients = [stack.enter_context(closing(connect(server))) for _ in range(10)]
        for client in clients:
            client.sendall(HEAD.replace(b"%d" % len(BODY), b"%d" % len(body)) + body)
        assert odd.recv(1) == b"H"  # so the server has begun with the others, or has them before it
        server.process.terminate()
        assert [rest(client)[9:12] for client in clients] == [b"200"] * 10
    assert server.process.wait(20) == 0
    assert server.process.communicate()[1].count("Traceback") == 0


def test_a_handshake_waits_for_earlier_answers(server: ServerProcess) -> None:
    """Behind requests in the same piece the WebSocket begins after their answers; a frame behind it is not lost."""
    message = json.dumps({"session_id": "early", "items": ["a"], "top_k": 0}).encode()
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    for pieces in ((HEAD + BODY) * 2 + SHAKE + b"\r\n" + frame,), ((HEAD + BODY) * 2 + SHAKE, b"\r\n" + frame):
        with closing(connect(server)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.sendall(piece)
            received = b""
            while b'"step":' not in received.partition(b" 101 ")[2]:
                received += client.recv(65_536)
        before, _, after = received.partition(b"HTTP/1.1 101 ")
        assert [answer.status for answer in split(before)] == [200, 200]
        assert b'"session_id":"early"' in after


def test_a_handshake_may_offer_more_than_a_websocket(server: ServerProcess) -> None:
    """Of several offers the WebSocket is taken."""
    with closing(connect(server)) as client:
        client.sendall(SHAKE.replace(b"websocket", b"h2c, WebSocket") + b"Content-Length: 0\r\n\r\n")
        assert client.recv(65_536)[9:12] == b"101"
