"""Every connection has a clock in every phase: whatever it does not do, its place is free again."""

from __future__ import annotations

from contextlib import closing
from time import monotonic

import httpx
import pytest

from ...servers import ServerProcess, Start
from ..sockets import HEALTH, connect
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
