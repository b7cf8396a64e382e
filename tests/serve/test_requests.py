"""What every request and answer has: an id, a place in the log, an origin."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from ..servers import ServerProcess, Start
from .harness import Harness

REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/sessions/u/events", {"items": ["a"]}),
    ("POST", "/v1/sessions/u/events", {"items": ["zebra"]}),
    ("POST", "/v1/sessions/u/events", None),
    ("PATCH", "/v1/sessions/u/events", None),
    ("GET", "/v1/sessions/u", None),
    ("GET", "/v1/sessions/nobody", None),
    ("POST", "/v1/events", {"events": [{"session_id": "u", "items": ["a"]}]}),
    ("POST", "/v1/predict", {"items": []}),
    ("GET", "/v1/model", None),
    ("GET", "/metrics", None),
    ("GET", "/healthz", None),
    ("HEAD", "/readyz", None),
    ("GET", "/docs", None),
    ("GET", "/nowhere", None),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_every_answer_has_the_requests_id_once(harness: Harness, method: str, path: str, body: Any) -> None:
    """The client's X-Request-ID comes back on answers and refusals; a request without one is given its own."""
    headers = {"X-Request-ID": "req:1/=~"}
    answer = await harness.client.request(method, path, json=body, headers=headers)
    assert answer.headers.get_list("x-request-id") == [headers["X-Request-ID"]]
    given = [(await harness.client.request(method, path, json=body)).headers["x-request-id"] for _ in range(2)]
    assert given[0] != given[1]
    assert all(re.fullmatch("[0-9a-f]+-[0-9a-f]+", one) for one in given)


@pytest.mark.anyio
@pytest.mark.parametrize("bad", [b"", b"a b", b"x" * 129, b"\xfc", b"a\tb", b"a\r\nSet-Cookie: x"])
async def test_an_id_that_is_not_sane_is_replaced(harness: Harness, bad: bytes) -> None:
    """An id that is empty, long, or not printable ASCII does not come back."""
    answer = await harness.client.get("/healthz", headers=[(b"X-Request-ID", bad)])
    assert re.fullmatch("[0-9a-f]+-[0-9a-f]+", answer.headers["x-request-id"])


@pytest.mark.anyio
async def test_a_fault_of_the_server_has_the_requests_id(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an answer 500 carries the id, once, by whichever way it came."""
    monkeypatch.setattr(harness.service, "perform", lambda *_: 1 / 0)
    for method, path, body in (REQUESTS[0], REQUESTS[4]):
        answer = await harness.client.request(method, path, json=body, headers={"X-Request-ID": "mine"})
        assert (answer.status_code, answer.headers.get_list("x-request-id")) == (500, ["mine"])


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    """The server's log, each line parsed, once it has stopped."""
    server.process.terminate()
    return [json.loads(line) for line in server.process.communicate()[1].splitlines()]


def test_a_log_in_json_has_a_line_for_each_request(start_server: Start) -> None:
    """Every line parses and has time, level and logger; an answered request's has its id, path, status and time."""
    server = start_server("--log-format", "json", "--access-log")
    with httpx.Client(base_url=server.url) as client:
        ids = [client.request(method, path, json=body).headers["x-request-id"] for method, path, body in REQUESTS]
        client.get("/v1/model", headers={"X-Request-ID": 'quote"brace}'})
    log = lines(server)
    assert [line["request_id"] for line in log] == [*ids, 'quote"brace}']
    for line, (method, path, _) in zip(log, REQUESTS, strict=False):
        assert (line["method"], line["path"], line["level"]) == (method, path, "INFO")
        assert line["logger"] == "arraylstm_serve.access"
        assert line["client"] == "127.0.0.1"
        assert 0 < line["seconds"] < 60
        assert line["message"]
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line["timestamp"])
    assert [line["status"] for line in log[:4]] == [200, 422, 400, 405]


def test_a_handshake_has_its_line_in_the_log(start_server: Start) -> None:
    """A WebSocket let in is logged once, when it is, not when it ends."""
    server = start_server("--log-format", "json", "--access-log")
    url = server.url.replace("http", "ws")
    with connect(f"{url}/v1/stream", additional_headers={"X-Request-ID": "mine"}):
        httpx.get(f"{server.url}/healthz")
    found = [(line["method"], line["path"], line["status"], line["request_id"]) for line in lines(server)]
    assert found[0] == ("GET", "/v1/stream", 101, "mine")
    assert [path for _, path, _, _ in found] == ["/v1/stream", "/healthz"]


def test_a_log_in_json_is_json_also_for_faults(start_server: Start) -> None:
    """What uvicorn and the server's own faults write is one JSON object a line, tracebacks included."""
    server = start_server("--log-format", "json", "--log-level", "debug")
    with httpx.Client(base_url=server.url) as client:
        client.get("/healthz")
    httpx.get(f"{server.url}/healthz", headers={"Connection": "close"})
    for line in lines(server):
        assert {"level", "logger", "message", "timestamp"} <= set(line)


def test_a_path_makes_no_log_line_of_its_own(start_server: Start) -> None:
    """Line breaks and colours in a path or an id stay escaped in the log: one line a request."""
    server = start_server("--access-log")
    paths = ["/v1/x%0a2026-01-01 FORGED", "/v1/x%1b[31m", "/v1/sessions/a%0d%0ab/events"]
    with httpx.Client(base_url=server.url) as client:
        for path in paths:
            client.get(path.replace(" ", "%20"))
    server.process.terminate()
    log = server.process.communicate()[1]
    assert log.count("\n") == len(paths)
    assert "\x1b" not in log
    assert not re.search("^2026-01-01 FORGED", log, re.MULTILINE)


def test_without_access_log_an_answered_request_writes_nothing(start_server: Start) -> None:
    """By default requests leave no trace in the log."""
    server = start_server("--log-format", "json")
    httpx.get(f"{server.url}/v1/model")
    assert lines(server) == []


@pytest.mark.anyio
async def test_a_faults_traceback_is_in_the_log_under_its_request(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of a fault names method and path."""
    monkeypatch.setattr(harness.service, "stats", lambda: 1 / 0)
    with caplog.at_level(logging.ERROR):
        await harness.client.get("/v1/stats")
    assert "GET /v1/stats failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


ORIGIN = "https://shop.example"


def test_pages_of_an_allowed_origin_may_call(start_server: Start) -> None:
    """With --cors-origin, preflights and answers, refusals too, name that origin and no other."""
    server = start_server("--cors-origin", ORIGIN, "--cors-origin", "https://other.example")
    events = f"{server.url}/v1/sessions/u/events"
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key,x-api-key"}
    preflight = httpx.options(events, headers={"Origin": ORIGIN, **asking})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["x-request-id"]
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"].lower()
    for body, status in (({"items": ["a"]}, 200), ({"items": ["zebra"]}, 422)):
        answer = httpx.post(events, json=body, headers={"Origin": ORIGIN})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    foreign = httpx.options(events, headers={"Origin": "https://evil.example", **asking})
    assert "access-control-allow-origin" not in foreign.headers
    answer = httpx.get(f"{server.url}/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_by_default_no_page_may_call(start_server: Start) -> None:
    """Without --cors-origin no foreign origin is allowed, and OPTIONS is a method like any other."""
    server = start_server()
    events = f"{server.url}/v1/sessions/u/events"
    preflight = httpx.options(events, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    answer = httpx.post(events, json={"items": ["a"]}, headers={"Origin": ORIGIN})
    assert (preflight.status_code, answer.status_code) == (405, 403)
    for response in (preflight, answer):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_keys_are_asked_of_allowed_origins_too(start_server: Start, tmp_path: Path) -> None:
    """A preflight needs no key, as browsers send none; the request itself does, and its refusal can be read."""
    keys = tmp_path / "keys"
    keys.write_text(f"alice {'0' * 64}\n")
    server = start_server("--cors-origin", ORIGIN, "--api-keys", str(keys))
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert httpx.options(f"{server.url}/v1/model", headers=headers).status_code == 200
    refused = httpx.get(f"{server.url}/v1/model", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
