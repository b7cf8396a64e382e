"""What requests_total counts over real connections: each answer once, under its route, whoever gives it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_stream

from ..servers import ServerProcess, Start
from ..waiting import until
from .harness import Harness
from .keys import bearer, everything, line
from .sockets import BODY, HEAD, HEALTH, LONG_HEADS, answer_to, connect, rest

EVENTS = "/v1/sessions/{session_id}/events"
STREAM = "/v1/stream"
UPGRADE = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

Counts = dict[tuple[str, int], int]


def samples(text: str, name: str) -> list[Sample]:
    """One metric's samples."""
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples if sample.name == f"arraylstm_{name}"]


def requests(text: str) -> Counts:
    """The requests counted by route and status, but for those for the metrics themselves.

    Those with a route, and no others, were timed.
    """
    found = {(s.labels["route"], int(s.labels["code"])): int(s.value) for s in samples(text, "requests_total")}
    timed = {sample.labels["route"] for sample in samples(text, "request_duration_seconds_count")}
    assert timed == {route for route, _ in found} - {"none"}
    return {labels: count for labels, count in found.items() if labels[0] != "/metrics"}


def streams(text: str) -> float:
    """The WebSockets that are open."""
    (sample,) = samples(text, "streams_active")
    return sample.value


def counts(server: ServerProcess, expected: Counts) -> None:
    """Check what is counted, once as much is as is expected."""
    ends = monotonic() + 20
    with httpx.Client(base_url=server.url) as client:
        while sum((found := requests(client.get("/metrics").text)).values()) < sum(expected.values()):
            assert monotonic() < ends, found
    assert found == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"no http\r\n\r\n", ("none", 400)),
        (LONG_HEADS[0], ("none", 400)),
        (LONG_HEADS[0][:-2], ("none", 400)),
        (b"\r\n" * 40_000, ("none", 400)),
        (HEALTH[:-2], ("none", 408)),
        (HEAD + BODY[:-1], (EVENTS, 408)),
        (HEAD + BODY + b"no http\r\n\r\n", (EVENTS, 400)),
        (UPGRADE, ("none", 400)),
    ],
    ids=[
        "no HTTP",
        "a long head",
        "a head without an end",
        "empty lines",
        "a slow head",
        "a slow body",
        "no HTTP behind a request",
        "a handshake that is none",
    ],
)
def test_what_is_refused_below_http_is_counted(start_server: Start, sent: bytes, expected: tuple[str, int]) -> None:
    """A refusal is counted once, with its status: under the route of the request that it answers, else `none`."""
    server = start_server("--request-timeout", "1")
    with closing(connect(server)) as client:
        client.sendall(sent)
        answer = rest(client)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"%d" % expected[1]]
    counts(server, {expected: 1})


def test_a_refusal_behind_two_requests_is_the_second_ones(start_server: Start) -> None:
    """Garbage behind two requests is refused once the first one has been answered, in the place of the second."""
    server = start_server()
    with closing(connect(server)) as client:
        client.sendall((HEAD + BODY) * 2 + b"no http\r\n\r\n")
        answer = rest(client)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"400"]
    counts(server, {(EVENTS, 200): 1, (EVENTS, 400): 1})


def test_a_handshake_of_another_method_is_a_request(start_server: Start) -> None:
    """A POST that offers to become a WebSocket is answered and counted as any POST to that path."""
    server = start_server()
    with closing(connect(server)) as client:
        client.sendall(UPGRADE.replace(b"GET", b"POST"))
        assert client.recv(65_536).startswith(b"HTTP/1.1 405 ")
    counts(server, {(STREAM, 405): 1})


def test_a_refusal_on_a_used_connection_is_not_the_answered_requests(start_server: Start) -> None:
    """Garbage that comes once a request has been answered is counted beside the request."""
    server = start_server()
    with closing(connect(server)) as client:
        answer_to(client, HEALTH)
        client.sendall(b"no http\r\n\r\n")
        rest(client)
    counts(server, {("/healthz", 200): 1, ("none", 400): 1})


def test_connections_too_many_are_counted(start_server: Start) -> None:
    """Each connection beyond the bound is counted with its 503."""
    server = start_server("--max-connections", "1")
    with httpx.Client(base_url=server.url) as client:
        client.get("/healthz")
        for _ in range(3):
            assert httpx.get(server.url).status_code == 503
        assert requests(client.get("/metrics").text) == {("/healthz", 200): 1, ("none", 503): 3}


def test_handshakes_are_counted(start_server: Start, tmp_path: Path) -> None:
    """A WebSocket's handshake is counted when it is answered, let in or refused; the open ones are known."""
    (tmp_path / "keys").write_text(line("alice", "key"))
    server = start_server("--api-keys", str(tmp_path / "keys"))
    url, key = server.url.replace("http", "ws"), {"X-API-Key": "key"}

    def refused(path: str, headers: dict[str, str]) -> int:
        with pytest.raises(InvalidStatus) as error, connect_stream(f"{url}{path}", additional_headers=headers):
            pass
        assert error.value.response.headers["X-Request-ID"]
        assert json.loads(error.value.response.body or b"")["status"] == error.value.response.status_code
        return error.value.response.status_code

    with httpx.Client(base_url=server.url, headers=key) as client:
        with connect_stream(f"{url}{STREAM}", additional_headers=key):
            assert refused(STREAM, {}) == 401
            assert refused(STREAM, key | {"Origin": "https://evil.example"}) == 403
            assert refused("/v1/secret", key) == 404
            text = client.get("/metrics").text
            assert requests(text) == {(STREAM, 101): 1, (STREAM, 401): 1, (STREAM, 403): 1, ("other", 404): 1}
            assert streams(text) == 1
        until(lambda: streams(client.get("/metrics").text) == 0)
    server.process.terminate()
    assert server.process.communicate(timeout=20)[1] == ""


def test_preflights_are_counted(start_server: Start) -> None:
    """Preflights that CORS answers, let in or not, are counted and have ids, as requests that no operation answers."""
    server = start_server("--cors-origin", ORIGIN, "--access-log")
    for origin, status in ((ORIGIN, 200), ("https://evil.example", 400)):
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{server.url}/v1/sessions/u/events", headers=asking)
        assert (answer.status_code, bool(answer.headers["X-Request-ID"])) == (status, True)
    counts(server, {("other", 200): 1, ("other", 400): 1})
    server.process.terminate()
    assert server.process.communicate(timeout=20)[1].count("OPTIONS") == 2


def long(path: str, headers: bytes = b"") -> bytes:
    """A request that takes the server a while."""
    body = b'{"items":["a"%s]}' % (b',"a"' * 5_000)
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s" % (
        path.encode(),
        len(body),
        headers,
        body,
    )


ORIGIN = "https://shop.example"


@pytest.mark.parametrize(
    ("sent", "route"),
    [
        (long("/v1/sessions/u/events"), EVENTS),
        (long("/v1/sessions/u/events", b"Origin: %s\r\n" % ORIGIN.encode()), EVENTS),
        (long("/v1/predict"), "/v1/predict"),
    ],
    ids=["the busiest route", "an allowed origin", "another route"],
)
def test_an_answer_that_nobody_hears_is_counted_499(start_server: Start, sent: bytes, route: str) -> None:
    """A client that has gone by the time it is answered is counted as gone, and what it asked for is done.

    Where a request is pipelined behind the one that is answered, nothing is read, so that cannot be seen.
    """
    server = start_server("--max-items", "100000", "--cors-origin", ORIGIN)
    with closing(connect(server)) as client:
        client.sendall(sent)
        with httpx.Client(base_url=server.url) as other:
            until(lambda: other.get("/v1/stats").json()["pending"])
            asked = other.get("/v1/stats").json()["requests_total"]
    counts(server, {(route, 499): 1, ("/v1/stats", 200): asked + 1})


@pytest.mark.parametrize("path", ["/v1/sessions/u/events", "/v1/predict"])
def test_answers_that_are_heard_are_no_499(start_server: Start, path: str) -> None:
    """A client that asks for the connection's end after its answer, or leaves once it has it, has been answered."""
    server = start_server()
    for headers in ({"Connection": "close"}, {}):
        with suppress(httpx.TransportError):
            assert httpx.post(f"{server.url}{path}", json={"items": ["a"]}, headers=headers).status_code == 200
    counts(server, {(path.replace("/u/", "/{session_id}/"), 200): 2})


@pytest.mark.anyio
async def test_who_is_not_let_in_is_counted_where_it_asked(bundle_path: Path, tmp_path: Path) -> None:
    """A request without a key, or of a foreign page, is counted under the route it asked for."""
    (tmp_path / "keys").write_text(f"alice {hashlib.sha256(b'key').hexdigest()}\n")
    harness = Harness(bundle_path, api_keys=tmp_path / "keys")
    asked = await everything(harness.client, {})
    await harness.client.post("/v1/predict", headers={"Origin": "https://evil.example"})
    text = (await harness.client.get("/metrics", headers=bearer("key"))).text
    paths = [name.split()[1].replace("/u", "/{session_id}") for name in asked if name != "GET /metrics"]
    expected = Counter((path if path != "/v1/nothing" else "other", 401) for path in paths)
    assert requests(text) == expected | {("/v1/predict", 403): 1}
