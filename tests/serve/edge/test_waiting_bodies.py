"""Long bodies that wait until there is memory for them: no more of them is read, and other clients' do not wait."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from ...servers import ServerProcess, Start
from ..sockets import rest
from .test_long_answers import resident

LONG = b'{"items":["a"]' + b" " * 6000 + b"}"


@pytest.fixture
def full(start_server: Start) -> Iterator[ServerProcess]:
    """A server on which one address has begun so many long bodies that it has its share of the memory for them."""
    server = start_server("--request-timeout", "4", "--max-body-bytes", str(2**20), "--max-body", str(2**16))
    with ExitStack() as clients:
        for _ in range(6):
            begin(clients, server, 2**16).sendall(b" " * 5000)
        yield server


def begin(clients: ExitStack, server: ServerProcess, size: int) -> socket.socket:
    """Begin a request with a body, from the greedy address."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10, source_address=("127.0.0.2", 0))
    clients.enter_context(client)
    client.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
    return client


def test_a_clients_waiting_bodies_do_not_hold_up_anothers(full: ServerProcess) -> None:
    """While one client's further bodies wait, for it has its share, another client's body is answered at once."""
    began = time.monotonic()
    answer = httpx.post(f"{full.url}/v1/sessions/u/events", content=LONG)
    assert answer.status_code == 200
    assert time.monotonic() - began < 2.0


def test_a_body_that_waits_is_not_read(full: ServerProcess) -> None:
    """Of bodies without an end that wait for memory, a few kilobytes are read, and not the megabytes sent."""
    before = resident(full.process.pid)
    with ExitStack() as clients:
        endless = [begin(clients, full, 10**9) for _ in range(8)]
        for client in endless:
            client.settimeout(0.1)
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for client in endless:
                with suppress(TimeoutError):
                    client.send(b" " * 2**20)
        assert resident(full.process.pid) - before < 8e6


def test_who_waits_in_vain_is_told_so(full: ServerProcess) -> None:
    """A body for which there is no memory in time is 503, and not called slow: the server did not read it."""
    with ExitStack() as clients:
        client = begin(clients, full, 10**6)
        client.settimeout(0.5)
        with suppress(TimeoutError):
            client.sendall(b" " * 10**6)
        client.settimeout(10)
        received = rest(client)
    assert b" 503 " in received.split(b"\r\n")[0]
    assert b"Long request bodies take all" in received
