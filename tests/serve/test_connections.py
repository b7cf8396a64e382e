"""The bounds of a connection: how slow, how many, and what becomes of one that is refused."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext, suppress
from time import monotonic

import httpx
import pytest

from ..servers import ServerProcess, Start
from .bundles import write_bundle
from .sockets import BODY, HEAD, HEALTH, LONG_HEADS, answer_to, connect, problem, rest


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits for a request for a moment only; the module's tests share it and do not stop it."""
    bundle = write_bundle(tmp_path_factory.mktemp("impatient") / "bundle")
    process = ServerProcess(bundle, "--request-timeout", "0.3")
    yield process
    process.stop()


@pytest.mark.parametrize(
    "sent", [HEALTH[:-2], HEAD, HEAD + BODY[:-1]], ids=["in the head", "before the body", "in the body"]
)
@pytest.mark.parametrize("first", [b"", HEALTH], ids=["fresh connection", "used connection"])
def test_a_request_that_comes_too_slowly_is_refused(impatient: ServerProcess, first: bytes, sent: bytes) -> None:
    """A head or a body that stalls for --request-timeout is answered 408, on a used connection as on a fresh one."""
    with closing(connect(impatient)) as client:
        if first:
            assert answer_to(client, first).startswith(b"HTTP/1.1 200 OK")
        client.sendall(sent)
        assert problem(rest(client)) == ("HTTP/1.1 408 Request Timeout", "request_timeout", True)
    assert httpx.get(f"{impatient.url}/v1/sessions/u").status_code == 404


def test_a_request_that_trickles_is_refused(impatient: ServerProcess) -> None:
    """A byte now and then does not keep a head alive beyond --request-timeout."""
    began = monotonic()
    with closing(connect(impatient)) as client:
        client.settimeout(0.05)
        answer = b""
        while not answer:
            client.sendall(b"x" if monotonic() - began > 0.01 else b"GET /healthz?")
            try:
                answer = client.recv(65_536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")
    assert monotonic() - began < 5


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_connection_without_a_request_is_closed(impatient: ServerProcess, sent: bytes) -> None:
    """A connection that sends nothing, or empty lines only, is closed after --request-timeout."""
    with closing(connect(impatient)) as client:
        client.sendall(sent)
        assert rest(client) == b""


def test_a_used_connection_without_a_further_request_is_closed(impatient: ServerProcess) -> None:
    """Empty lines after an answered request do not keep the connection for ever."""
    with closing(connect(impatient)) as client:
        answer_to(client, HEALTH)
        client.sendall(b"\r\n")
        assert rest(client) == b""


def test_an_early_answer_does_not_wait_for_the_body(start_server: Start) -> None:
    """A request that was refused before its body had come is not refused once more, and its connection ends."""
    server = start_server("--request-timeout", "0.3", "--max-body", "10")
    with closing(connect(server)) as client:
        client.sendall(HEAD.replace(b"15", b"99") + BODY)
        answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_garbage_after_requests_is_refused_without_a_fault(start_server: Start, requests: int) -> None:
    """Bytes that are no HTTP behind whole requests are refused, and the log has no traceback."""
    server = start_server("--request-timeout", "0.3")
    with closing(connect(server)) as client:
        client.sendall((HEAD + BODY) * requests + b"no http\r\n\r\n")
        assert problem(rest(client)) == ("HTTP/1.1 400 Bad Request", "malformed_request", True)
    httpx.get(f"{server.url}/healthz")
    server.process.terminate()
    assert "Traceback" not in server.process.communicate()[1]


@pytest.mark.parametrize("head", LONG_HEADS, ids=["one header", "many headers", "path"])
@pytest.mark.parametrize("first", [b"", HEAD + BODY], ids=["alone", "behind a request"])
def test_a_long_head_is_refused_though_it_is_whole(server: ServerProcess, first: bytes, head: bytes) -> None:
    """A head over 64 KiB is refused also where all of it comes at once; one just below is taken."""
    with closing(connect(server)) as client:
        client.sendall(first + head)
        assert problem(rest(client)) == ("HTTP/1.1 400 Bad Request", "malformed_request", True)
    with closing(connect(server)) as client:
        assert answer_to(client, HEALTH[:-2] + b"X: " + b"x" * 65_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")


def test_empty_lines_have_an_end(start_server: Start) -> None:
    """A connection on which nothing but empty lines come is refused after 64 KiB, without a fault."""
    server = start_server()
    with closing(connect(server)) as client:
        client.sendall(b"\r\n" * 40_000)
        assert problem(rest(client)) == ("HTTP/1.1 400 Bad Request", "malformed_request", True)
    server.process.terminate()
    assert server.process.communicate()[1] == ""


@pytest.fixture
def crowded(start_server: Start) -> Iterator[tuple[ServerProcess, ExitStack]]:
    """A server whose three connections are taken, by clients that are on the stack."""
    server = start_server("--max-connections", "3")
    with ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(closing(connect(server)))
            answer_to(client, HEALTH)
        yield server, clients


def test_a_connection_too_many_is_told_so(crowded: tuple[ServerProcess, ExitStack]) -> None:
    """One connection beyond the bound gets 503 with Retry-After as a problem, whatever it asks, and is closed."""
    server, _ = crowded
    with closing(connect(server)) as client:
        client.sendall(HEAD + BODY)
        answer = rest(client)
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert problem(answer) == ("HTTP/1.1 503 Service Unavailable", "overloaded", True)


def test_refused_connections_take_nobodys_place(crowded: tuple[ServerProcess, ExitStack]) -> None:
    """When one who was let in leaves, the next one is served, however many refused ones still hang on."""
    server, clients = crowded
    with ExitStack() as refused:
        for _ in range(20):
            client = refused.enter_context(closing(connect(server)))
            assert client.recv(12) == b"HTTP/1.1 503"
        clients.close()
        with httpx.Client(base_url=server.url) as client:
            answers = [client.get("/healthz").status_code]
            while answers[-1] == 503 and len(answers) < 20:  # the server hears of the leaving a moment later
                answers.append(client.get("/healthz").status_code)
        assert answers[-1] == 200


@pytest.mark.parametrize("answered", [False, True], ids=["before the answer", "after it"])
def test_a_trailer_has_an_end(server: ServerProcess, answered: bool) -> None:
    """A trailer that goes on and on is cut off after 64 KiB, whether or not the request has been answered."""
    begun = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with closing(connect(server)) as client:
        if answered:
            assert b" 404 " in answer_to(client, begun % b"/nothing")
        else:
            client.sendall(begun % b"/v1/sessions/u/events")
        client.sendall((b"x: " + b"y" * 16_000 + b"\r\n") * 5)
        with suppress(ConnectionResetError) if answered else nullcontext():
            assert rest(client)[:12] == (b"" if answered else b"HTTP/1.1 400")


def test_a_client_that_does_not_read_is_cut_off(start_server: Start) -> None:
    """Answers that nobody reads hold their connection for --request-timeout only."""
    server = start_server("--request-timeout", "1", "--max-connections", "1")
    with closing(connect(server)) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        ends = monotonic() + 10
        while monotonic() < ends:
            with suppress(httpx.TransportError):
                if httpx.get(f"{server.url}/healthz").status_code == 200:
                    return
    pytest.fail("the connection is still held")


def test_a_client_that_leaves_does_not_disturb_the_others(server: ServerProcess) -> None:
    """Connections cut in the head, in the body or before the answer leave the server answering."""
    body = b'{"items":["a"]}'
    head = b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    for sent in (head[:20], head + body[:3], head + body):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(sent)
    answer = httpx.post(f"{server.url}/v1/sessions/other/events", content=body)
    assert answer.json()["step"] == 1


def test_many_clients_at_once_are_each_answered(server: ServerProcess) -> None:
    """Threads with a session each, over real connections, see every step of theirs once and in order."""
    steps: dict[str, list[int]] = {}

    def play(name: str) -> None:
        with httpx.Client(base_url=server.url) as client:
            events = [client.post(f"/v1/sessions/{name}/events", json={"items": ["a"]}) for _ in range(30)]
        steps[name] = [event.json()["step"] for event in events]

    threads = [threading.Thread(target=play, args=(f"s{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == {f"s{number}": list(range(1, 31)) for number in range(8)}


def test_large_bodies_and_ids_get_clear_answers(start_server: Start) -> None:
    """Over a real connection a megabyte id and a body over the bound are answered, not cut off."""
    server = start_server("--max-body", "1000")
    long_id = httpx.post(f"{server.url}/v1/sessions/{'x' * 60_000}/events", json={"items": ["a"]})
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/sessions/" + b"x" * 1_000_000 + b"/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        longer_id = b"".join(iter(lambda: client.recv(4096), b""))
    large = httpx.post(f"{server.url}/v1/sessions/u/events", content=b" " * 2_000_000)
    assert (long_id.status_code, long_id.json()["code"]) == (422, "invalid_session_id")
    head, _, body = longer_id.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/model", "/docs", "/openapi.json"])
def test_what_can_be_got_has_a_head(server: ServerProcess, path: str) -> None:
    """HEAD is answered as GET is, without the body."""
    whole, head = httpx.get(f"{server.url}{path}"), httpx.head(f"{server.url}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_the_head_of_a_request_is_bounded(start_server: Start) -> None:
    """Headers without an end are refused once after 65,536 bytes; whatever comes then is dropped."""
    process = start_server()
    with socket.create_connection(("127.0.0.1", process.port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000)
        answer = client.recv(4096)
        client.sendall(b"\r\nno header\r\n\r\n")
        answer += b"".join(iter(lambda: client.recv(4096), b""))
    process.process.terminate()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 400 ") == 1
    assert process.process.communicate()[1] == ""


def test_bodies_do_not_count_as_heads(server: ServerProcess) -> None:
    """A body longer than any head, and a later head that comes in parts, are taken."""
    body = b'{"items":["a"]}'.ljust(100_000)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        for part in (head + body[:70_000], body[70_000:] + b"GET /healthz HTTP/1.1\r\n"):
            client.sendall(part)
            httpx.get(f"{server.url}/healthz")
        client.sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_connections_are_bounded(start_server: Start) -> None:
    """While more than max_connections are open, requests are answered 503; later ones are served again."""
    process = start_server("--max-connections", "2")
    with httpx.Client(base_url=process.url) as first, httpx.Client(base_url=process.url) as second:
        assert [first.get("/healthz").status_code, second.get("/healthz").status_code] == [200, 200]
        assert httpx.get(f"{process.url}/healthz").status_code == 503
        assert first.get("/healthz").status_code == 200
