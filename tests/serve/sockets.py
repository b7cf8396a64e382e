"""Raw connections to a server: bytes sent, bytes received."""

from __future__ import annotations

import json
import socket

from ..servers import ServerProcess

BODY = b'{"items":["a"]}'
HEAD = b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(BODY)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server: ServerProcess) -> socket.socket:
    """A connection that does not wait for ever."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def rest(client: socket.socket) -> bytes:
    """Everything that comes until the server hangs up."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


def answer_to(client: socket.socket, request: bytes) -> bytes:
    """What one whole request is answered with, the connection staying open."""
    client.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += more(client)
    head, _, body = received.partition(b"\r\n\r\n")
    size = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split()[1])
    while len(body) < size:
        body += more(client)
    return head


def more(client: socket.socket) -> bytes:
    """What comes next on a connection that the server has no reason to end."""
    piece = client.recv(65_536)
    assert piece, "the server has hung up"
    return piece


def problem(answer: bytes) -> tuple[str, str, bool]:
    """Status line and code of a refusal, and whether it announces the end of the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ") for line in lines[1:])}
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-request-id"]
    assert int(headers["content-length"]) == len(body)
    return lines[0], json.loads(body)["code"], headers["connection"] == "close"


LONG_HEADS = [
    HEALTH[:-2] + b"X: " + b"x" * 66_000 + b"\r\n\r\n",
    HEALTH[:-2] + b"X: x\r\n" * 11_000 + b"\r\n",
    HEALTH.replace(b"/healthz", b"/healthz?" + b"x" * 66_000),
]


def accepts(port: int) -> bool:
    """Whether anybody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
