"""The same over TLS: pipelining, clients that do not read, connections between requests."""

from __future__ import annotations

import ssl
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic

import pytest

from ...servers import ServerProcess, Start
from ..sockets import BODY, HEAD, HEALTH, answer_to, connect, rest
from ..test_tls import folder as folder
from ..test_tls import pytestmark as pytestmark
from ..test_tls import trust as trust
from .answers import CLOSE, split
from .test_handshakes import SHAKE
from .test_streams import PING, frame, send_for_ever


def encrypted(server: ServerProcess, trust: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection to a server."""
    return trust.wrap_socket(connect(server), server_hostname="127.0.0.1")


@pytest.fixture
def served(folder: Path, start_server: Start) -> ServerProcess:
    """A server that is impatient."""
    flags = ("--request-timeout", "2", "--keep-alive", "1", "--max-connections", "1")
    return start_server("--tls-certificate", str(folder / "both.pem"), *flags)


def test_requests_behind_each_other_are_answered_in_order(served: ServerProcess, trust: ssl.SSLContext) -> None:
    """Hundreds of events of one session sent at once are each applied, and answered in their order."""
    with closing(encrypted(served, trust)) as client:
        client.sendall((HEAD + BODY) * 500 + CLOSE)
        answers = split(rest(client))
    assert [answer.status for answer in answers] == [200] * 501
    assert all(b'"step":%d,' % (n + 1) in answer.body for n, answer in enumerate(answers[:-1]))


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_who_does_not_read_is_let_go(served: ServerProcess, trust: ssl.SSLContext, kind: str) -> None:
    """The only place is free again after --request-timeout."""
    with closing(encrypted(served, trust)) as client:
        client.settimeout(1)
        if kind == "websocket":
            client.sendall(SHAKE + b"\r\n")
            assert client.recv(4096)[9:12] == b"101"
        sent = HEALTH.replace(b"healthz", b"openapi.json") if kind == "http" else frame(PING, b"x" * 125)
        with suppress(OSError):
            send_for_ever(client, sent * 100)
        assert another_is_served(served, trust)


def another_is_served(server: ServerProcess, trust: ssl.SSLContext) -> bool:
    """Whether a second client is served before long."""
    ends = monotonic() + 20
    while monotonic() < ends:
        with suppress(OSError), closing(encrypted(server, trust)) as client:
            client.sendall(CLOSE)
            if rest(client)[9:12] == b"200":
                return True
    return False


def test_an_idle_connection_is_closed(served: ServerProcess, trust: ssl.SSLContext) -> None:
    """After --keep-alive, and in good order."""
    with closing(encrypted(served, trust)) as client:
        answer_to(client, HEALTH)
        assert rest(client) == b""


def test_who_does_not_read_does_not_keep_the_server(served: ServerProcess, trust: ssl.SSLContext) -> None:
    """Told to stop while a client does not read, the server ends, with status 0 and no traceback."""
    with closing(encrypted(served, trust)) as client:
        client.settimeout(1)
        with suppress(OSError):
            send_for_ever(client, HEALTH.replace(b"healthz", b"openapi.json") * 100)
        served.process.terminate()
        assert served.process.wait(20) == 0
    assert "Traceback" not in served.process.communicate()[1]
