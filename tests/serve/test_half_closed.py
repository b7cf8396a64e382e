"""Clients that send no more: one that still reads is answered, one that is gone is dropped."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from ..servers import ServerProcess
from ..waiting import until
from .sockets import BODY, HEAD, HEALTH, connect, rest
from .wide import write_wide_bundle

EVENTS = 100
TOLD = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of a thousand items; a bulk request for all of them is much work."""
    process = ServerProcess(write_wide_bundle(tmp_path_factory.mktemp("wide") / "bundle", 1000))
    yield process
    process.stop()


def bulk(name: str) -> bytes:
    """A request of many events with long answers."""
    events = [{"session_id": f"{name}-{place}", "items": [1], "top_k": 1000} for place in range(EVENTS)]
    body = json.dumps({"events": events}).encode()
    return b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@contextmanager
def asleep(server: ServerProcess) -> Iterator[None]:
    """Stop a server for a while: what comes meanwhile comes to it at once."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def half_closed(server: ServerProcess, *pieces: bytes) -> bytes:
    """What comes, until the server hangs up, after a client has sent some pieces and its end before any is read."""
    with closing(connect(server)) as client:
        with asleep(server):
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
        return rest(client)


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([HEAD + BODY], 1),
        ([HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + BODY], 1),
        ([HEAD, BODY], 1),
        ([HEALTH * 3], 3),
        ([(HEAD + BODY) * 2, HEALTH], 3),
        ([HEAD + BODY + HEAD + BODY[:-1]], 1),
        ([HEAD + BODY + HEALTH[:-2]], 1),
        ([(HEAD + BODY) * 2 + HEAD], 2),
        ([HEAD + BODY + b"\r\n"], 1),
    ],
    ids=["post", "old", "two pieces", "many", "mixed", "cut in the body", "cut in the head", "third cut", "empty line"],
)
def test_what_came_in_whole_is_answered(server: ServerProcess, pieces: list[bytes], answers: int) -> None:
    """A client that shuts down its sending side gets the answers to all whole requests, then the end."""
    received = half_closed(server, *pieces)
    assert received.count(b" 200 OK\r\n") == received.count(b"HTTP/1.1 ") == answers


def test_a_long_answer_comes_whole(wide: ServerProcess) -> None:
    """An answer in pieces comes to its end and says that it is the last; the interim answer before it is ignored."""
    received = half_closed(wide, bulk("long"))
    assert received.startswith(TOLD + b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in received
    assert received.count(b'"session_id":"long-') == EVENTS
    assert received.endswith(b"]}\r\n0\r\n\r\n")


def test_an_http_client_ignores_the_interim_answer(wide: ServerProcess) -> None:
    """A library for HTTP reads the answer after its connection was half closed."""
    connection = http.client.HTTPConnection("127.0.0.1", wide.port, timeout=30)
    body = bulk("library").partition(b"\r\n\r\n")[2]
    with asleep(wide):
        connection.request("POST", "/v1/events", body)
        connection.sock.shutdown(socket.SHUT_WR)
    response = connection.getresponse()
    assert (response.status, len(json.loads(response.read())["results"])) == (200, EVENTS)
    connection.close()


@pytest.mark.parametrize(
    ("behind", "most"), [(b"", 4), (HEALTH, 8), (HEALTH * 2, 8)], ids=["nothing", "a request", "two requests"]
)
def test_who_is_gone_costs_little_and_who_is_not_is_answered(tmp_path: Path, behind: bytes, most: int) -> None:
    """Work for clients that hang up is dropped, also where bytes behind the request hide the end; not so others'."""
    server = ServerProcess(write_wide_bundle(tmp_path / "bundle", 1000))
    try:
        for number in range(100):
            with closing(connect(server)) as client:
                client.sendall(bulk(f"gone-{number}") + behind)
        assert half_closed(server, bulk("there")).count(b'"session_id":"there-') == EVENTS
        stats = httpx.get(f"{server.url}/v1/stats").json
        until(lambda: not stats()["pending"])
        assert stats()["events_total"] < most * EVENTS
    finally:
        server.stop()
