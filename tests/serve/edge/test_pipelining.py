"""Requests sent without waiting for answers: all are answered in order, and few of them are in memory at a time."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing
from time import monotonic

import httpx

from ...servers import ServerProcess, Start
from ..sockets import BODY, HEAD, connect
from .answers import CLOSE, exchange, memory

NOTHING = b"GET /v HTTP/1.1\r\nHost:localhost\r\n\r\n"
SECONDS = 4


def test_requests_behind_each_other_are_answered_in_order(server: ServerProcess) -> None:
    """A thousand events of one session, in pieces of any size, are each applied once and answered in their order."""
    sent = (HEAD + BODY) * 1000 + CLOSE
    for number, size in enumerate((7_777, len(sent))):
        answers = exchange(server, *(sent[start : start + size] for start in range(0, len(sent), size)))
        assert [answer.status for answer in answers] == [200] * 1001
        steps = [answer.body for answer in answers[:-1]]
        assert all(b'"step":%d,' % (1000 * number + n + 1) in body for n, body in enumerate(steps))


def test_pipelining_takes_no_memory(start_server: Start) -> None:
    """Connections that send requests as fast as they can and read the answers leave the server's memory as it is."""
    server = start_server()
    httpx.get(f"{server.url}/v")
    before = most = memory(server)
    ends = monotonic() + SECONDS
    with ExitStack() as stack:
        most = max(most, flooded(server, [stack.enter_context(closing(connect(server))) for _ in range(4)], ends))
    assert most - before < 50e6


def flooded(server: ServerProcess, clients: list[socket.socket], ends: float) -> int:
    """Most memory of the server while clients send requests and read answers."""
    most = 0
    threads = [threading.Thread(target=flood, args=(client, ends)) for client in clients]
    threads += [threading.Thread(target=drain, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    while monotonic() < ends:
        assert httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200
        most = max(most, memory(server))
    for client in clients:
        client.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    return most


def flood(client: socket.socket, ends: float) -> None:
    """Send requests until a time."""
    try:
        while monotonic() < ends:
            client.sendall(NOTHING * 5000)
    except OSError:
        return


def drain(client: socket.socket) -> None:
    """Read answers until there are no more."""
    try:
        while client.recv(1 << 20):
            pass
    except OSError:
        return
