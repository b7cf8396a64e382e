"""Connections between requests: how long they stay, and that no request is lost at their end."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from time import monotonic, sleep

import pytest

from arraylstm_serve.settings import Settings

from ...servers import Start
from ..sockets import BODY, HEAD, HEALTH, answer_to, connect, more, rest
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


def test_no_request_that_came_before_the_close_is_dropped(start_server: Start) -> None:
    """A request that comes while the server is busy, and the connection's time runs out meanwhile, is answered."""
    server = start_server("--keep-alive", "0.5")
    walk = b'{"items":["a"' + b',"a"' * 999 + b'],"top_k":0}'
    event = HEAD.replace(b"%d" % len(BODY), b"%d" % len(walk)) + walk
    with ExitStack() as stack:
        busy = [stack.enter_context(closing(connect(server))) for _ in range(20)]
        idle = stack.enter_context(closing(connect(server)))
        answer_to(idle, HEALTH)
        began = monotonic()
        sleep(0.4)
        for client in busy:  # each takes the server some time, all of them more than is left of the half second
            client.sendall(event)
        sleep(max(0.0, began + 0.49 - monotonic()))
        idle.sendall(HEALTH)
        assert more(idle).startswith(b"HTTP/1.1 200 OK")


def test_requests_at_the_moment_of_the_close_are_answered(start_server: Start) -> None:
    """Of requests sent from a moment before the time is up, all that were sent before it are answered."""
    server = start_server("--keep-alive", "1")
    with ExitStack() as stack:
        clients = []
        for _ in range(60):
            client = stack.enter_context(closing(connect(server)))
            answer_to(client, HEALTH)
            clients.append((client, monotonic()))
            sleep(0.005)
        lost = 0
        for number, (client, answered) in enumerate(clients):
            sleep(max(0.0, answered + 0.985 + number % 10 * 0.001 - monotonic()))
            client.sendall(HEALTH)
            with suppress(ConnectionError):
                lost += not client.recv(12).startswith(b"HTTP/1.1 200")
                continue
            lost += 1
    assert lost == 0


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
