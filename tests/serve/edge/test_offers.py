"""Offers to change the protocol: whatever is offered, a request is answered, and its body stays its body."""

from __future__ import annotations

import pytest

from ...servers import ServerProcess
from .answers import CLOSE, exchange

DELETE = b"DELETE /v1/sessions/victim HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAA\r\n",
    "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\n",
    "list": b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
    "repeated": b"Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: TLS/1.2\r\n",
    "WebSocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "empty": b"Connection: Upgrade\r\nUpgrade:\r\n",
}


def post(
    name: str, offer: bytes, body: bytes, version: bytes = b"1.1", *, chunked: bool = False
) -> tuple[bytes, bytes]:
    """Head and body of an event of a session."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"POST /v1/sessions/%s/events HTTP/%s\r\nHost: localhost\r\n%s%s\r\n\r\n" % (
        name.encode(),
        version,
        offer,
        framing,
    )
    return head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("offer", OFFERS)
def test_a_request_with_an_offer_keeps_its_body(server: ServerProcess, offer: str, chunked: bool) -> None:
    """An event with an offer is applied, in one piece or several, and what is pipelined behind it is answered."""
    name = f"{offer}{chunked:d}"
    head, body = post(name, OFFERS[offer], b'{"items":["a"]}', chunked=chunked)
    behind = b"".join(post(name, b"", b'{"items":["b"]}'))
    for step, pieces in enumerate([(head + body + behind + CLOSE,), (head, body, behind + CLOSE)]):
        answers = exchange(server, *pieces)
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert [b'"step":%d,' % (2 * step + n) in answers[n - 1].body for n in (1, 2)] == [True, True]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("offer", OFFERS)
def test_a_body_is_no_request(server: ServerProcess, offer: str, chunked: bool) -> None:
    """A request inside the body of another is not carried out, in whatever pieces they come."""
    assert exchange(server, *post("victim", b"", b'{"items":["a"]}'), CLOSE)[0].status == 200
    head, body = post("other", OFFERS[offer], DELETE, chunked=chunked)
    for pieces in ((head + body + CLOSE,), (head, body, CLOSE), (head + body[:9], body[9:] + CLOSE)):
        assert [answer.status for answer in exchange(server, *pieces)] == [400, 200]
    look = b"GET /v1/sessions/victim HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert exchange(server, look, CLOSE)[0].status == 200


def test_an_offer_in_http_1_0_is_ignored(server: ServerProcess) -> None:
    """HTTP/1.0 has no upgrades: a WebSocket offered there is not begun, and an event with one is applied."""
    head, body = post("old", OFFERS["WebSocket"], b'{"items":["a"]}', b"1.0")
    assert [answer.status for answer in exchange(server, head + body)] == [200]
    handshake = b"GET /v1/stream HTTP/1.0\r\nHost: localhost\r\n" + OFFERS["WebSocket"] + KEY + b"\r\n"
    assert [answer.status for answer in exchange(server, handshake)] == [426]


KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def test_a_connect_is_refused(server: ServerProcess) -> None:
    """CONNECT, after which anything might come, ends the connection."""
    for target in (b"/v1/model", b"example.org:443"):
        answers = exchange(
            server, b"CONNECT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n" % target + DELETE
        )
        assert [answer.status for answer in answers] == [400]


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nhost: y\r\n"])
def test_a_request_has_one_host(server: ServerProcess, hosts: bytes) -> None:
    """A request of HTTP/1.1 without a Host, or with two, is refused, and so is one of HTTP/1.0 with two."""
    (answer,) = exchange(server, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
    assert (answer.status, b"one Host header" in answer.body) == (400, True)
    (old,) = exchange(server, b"GET /healthz HTTP/1.0\r\n" + hosts + b"\r\n")
    assert old.status == (400 if hosts else 200)
