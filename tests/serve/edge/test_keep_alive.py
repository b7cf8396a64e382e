"""Connections between requests: how long they stay, and that no request is lost at their end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, closing
from time import monotonic

import pytest
from uvicorn.server import ServerState

from arraylstm_serve.server.process import configure
from arraylstm_serve.server.protocol import Protocol
from arraylstm_serve.settings import Settings

from ...servers import Start
from ..harness import Harness
from ..sockets import BODY, HEAD, HEALTH, answer_to, connect, rest
from .answers import exchange


def test_a_connection_stays_for_as_long_as_is_set(start_server: Start) -> None:
    """An idle connection is closed after --keep-alive, by default longer than balancers keep theirs."""
    assert Settings().keep_alive > 60
    server = start_server("--keep-alive", "1")
    with closing(connect(server)) as client:
        answer_to(client, HEALTH)
        began = monotonic()
        assert rest(client) == b""
        assert 0.9 < monotonic() - began < 9


class Wire(asyncio.Transport):
    """A connection whose bytes nobody has read yet."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take any bounds: nothing is written."""

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self.closed

    def close(self) -> None:
        """Close it."""
        self.closed = True


@pytest.mark.anyio
@pytest.mark.parametrize("came", [b"", HEALTH], ids=["nothing came", "a request came"])
async def test_no_request_that_came_before_the_close_is_dropped(harness: Harness, came: bytes) -> None:
    """A connection whose time is up is closed only if the kernel has nothing of it that is still to be read."""
    config = configure(harness.service, None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        protocol, wire = Protocol(config, ServerState(), {}), Wire(ours)
        protocol.connection_made(wire)
        theirs.sendall(came)
        protocol.timeout_keep_alive_handler()
        assert wire.closed is not came.startswith(b"GET")
        assert (protocol.timeout_keep_alive_task is None) is wire.closed
        protocol.connection_lost(None)
        protocol.stop_clock()


@pytest.mark.parametrize("count", [1, 50])
def test_a_request_that_came_before_the_stop_is_answered(start_server: Start, count: int) -> None:
    """Idle connections whose requests come together with SIGTERM are answered, then closed."""
    server = start_server()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server))) for _ in range(count)]
        for client in clients:
            answer_to(client, HEALTH)
        for client in clients:
            client.sendall(HEAD + BODY)
        server.process.terminate()
        answers = [rest(client) for client in clients]
    assert [answer[9:12] for answer in answers] == [b"200"] * count
    assert server.process.wait(20) == 0


def test_an_answer_that_says_close_closes(start_server: Start) -> None:
    """A client that asks for the end gets it at once, whatever --keep-alive says."""
    server = start_server("--keep-alive", "60")
    began = monotonic()
    assert [answer.status for answer in exchange(server, HEALTH[:-2] + b"Connection: close\r\n\r\n")] == [200]
    assert monotonic() - began < 10
