"""Offers to change the protocol (RFC 9110, section 7.8): one for a WebSocket is taken, every other one is ignored."""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, each with its value, in the order in which they came."""

WEBSOCKET = b"websocket"


def is_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Whether a request begins a WebSocket: a GET of HTTP/1.1, without a body, with `websocket` among its offers."""
    if method != b"GET" or version != "1.1":
        return False
    offers: list[bytes] = []
    for name, value in headers:
        if name == b"upgrade":
            offers += (offer.strip() for offer in value.lower().split(b","))
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return False
    return WEBSOCKET in offers


def handshake(url: bytes, headers: Headers) -> bytes:
    """Return the head of a handshake, with `websocket` as the only offer."""
    kept = [(name, value) for name, value in headers if name not in (b"upgrade", b"content-length")]
    return head(b"GET", url, "1.1", [*kept, (b"upgrade", WEBSOCKET)])


def without_offers(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return the head of a request as it would be if the client had offered nothing."""
    return head(method, url, version, [(name, value) for name, value in headers if name != b"upgrade"])


def head(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return the bytes of a request's head."""
    first = b"%s %s HTTP/%s\r\n" % (method, url, version.encode())
    return b"".join([first, *(b"%s: %s\r\n" % header for header in headers), b"\r\n"])
