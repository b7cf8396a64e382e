"""Every refusal: its status, its stable code, and that it says what was seen and what is allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .answers import check
from .harness import Harness

pytestmark = pytest.mark.anyio

EVENTS = "/v1/sessions/u/events"

BAD_BODIES = [
    (b"", "invalid_json", "truncated"),
    (b"{", "invalid_json", "truncated"),
    (b"\xff\xfe", "invalid_json", "UTF-16"),
    (b"\xfe\xed", "invalid_json", "malformed"),
    (b'{"items": ["\xff"]}', "invalid_json", "utf-8"),
    (b'{"items": [NaN]}', "invalid_json", "malformed"),
    (b'{"items": [Infinity]}', "invalid_json", "malformed"),
    (b'{"items": ["a"]} "b"', "invalid_json", "trailing"),
    (b'{"items": ["\\ud800"]}', "invalid_json", ""),
    (b"[" * 100_000, "invalid_request", "Expected `object`"),
    (b'{"items": [' + b'{"a":' * 50_000, "invalid_request", "int | str"),
    (b"[]", "invalid_request", "Expected `object`, got `array`"),
    (b"{}", "invalid_request", "missing required field `items`"),
    (b'{"items": []}', "invalid_request", "length >= 1"),
    (b'{"items": "a"}', "invalid_request", "Expected `array`, got `str`"),
    (b'{"items": [true]}', "invalid_request", "got `bool` - at `$.items[0]`"),
    (b'{"items": [1.0]}', "invalid_request", "got `float`"),
    (b'{"items": [1e999]}', "invalid_request", "out of range"),
    (b'{"items": [null]}', "invalid_request", "got `null`"),
    (b'{"items": [99999999999999999999]}', "invalid_request", "items[0]"),
    (b'{"items": ["a"], "top_k": -1}', "invalid_request", ">= 0"),
    (b'{"items": ["a"], "top_k": true}', "invalid_request", "got `bool`"),
    (b'{"items": ["a"], "topk": 1}', "invalid_request", "unknown field `topk`"),
    (b'{"items": ["a"], "' + b"x" * 100_000 + b'": 1}', "invalid_request", "unknown field"),
    (b'{"items": ["' + b"z" * 100_000 + b'"]}', "unknown_item", "100002 characters"),
    (b'{"items": ["a", "zebra"]}', "unknown_item", '"zebra" is not known; allowed are the model\'s 7 labels'),
    (b'{"items": [6]}', "unknown_item", "Item 6 "),
    (b'{"items": ["a"], "exclude": ["zebra"]}', "unknown_item", '"zebra"'),
    (b'{"items": ["a"], "exclude": [1.5]}', "invalid_request", "got `float` - at `$.exclude[0]`"),
]


@pytest.mark.parametrize("path", [EVENTS, "/v1/predict"])
@pytest.mark.parametrize(("body", "code", "said"), BAD_BODIES, ids=[str(body[:24]) for body, _, _ in BAD_BODIES])
async def test_a_bad_body_is_refused_with_its_reason(
    harness: Harness, path: str, body: bytes, code: str, said: str
) -> None:
    """Whatever is wrong with a body is told by a stable code and a short text, and begins no session."""
    problem = check(await harness.client.post(path, content=body), code)
    assert said in problem["detail"]
    assert len(harness.service.sessions) == 0


@pytest.mark.parametrize("step", ["-1", '"3"', "1.5", "99999999999999999999"])
async def test_a_step_is_a_natural_number(harness: Harness, step: str) -> None:
    """An expected_step that is no natural number is refused."""
    body = f'{{"items": ["a"], "expected_step": {step}}}'
    assert "expected_step" in check(await harness.client.post(EVENTS, content=body), "invalid_request")["detail"]


async def test_the_number_of_items_is_bounded(bundle_path: Path) -> None:
    """A request of more items than allowed is refused with both numbers."""
    harness = Harness(bundle_path, max_items=3)
    assert (await harness.send("u", *"abc")).status_code == 200
    problem = check(await harness.send("u", *"abcd"), "invalid_request")
    assert "4 items; at most 3" in problem["detail"]


@pytest.mark.parametrize("path", [EVENTS, "/v1/predict"])
async def test_the_body_is_bounded_also_while_it_streams(bundle_path: Path, path: str) -> None:
    """A body larger than allowed is refused, with or without a Content-Length."""
    harness = Harness(bundle_path, max_body=100)
    body = b'{"items": ["a"]}'
    assert (await harness.client.post(path, content=body.ljust(100))).status_code == 200

    async def stream() -> AsyncIterator[bytes]:
        yield body
        for _ in range(9):
            yield b" " * 10

    for content in (body.ljust(101), stream()):
        assert "100 bytes" in check(await harness.client.post(path, content=content), "payload_too_large")["detail"]


BAD_IDS = ["a b", "ü", "a%00b", "a%2Fb", "x" * 129, "x" * 60_000, "", "{}"]


@pytest.mark.parametrize("session_id", BAD_IDS, ids=[bad[:10] for bad in BAD_IDS])
async def test_a_session_id_has_a_form(harness: Harness, session_id: str) -> None:
    """Ids other than 1 to 128 of the allowed characters are refused, shortened in the message."""
    response = await harness.client.post(f"/v1/sessions/{session_id}/events", content=b'{"items": ["a"]}')
    assert "1 to 128 characters" in check(response, "invalid_session_id")["detail"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_every_route_checks_the_session_id(harness: Harness, method: str) -> None:
    """The other routes of a session refuse a malformed id in the same way."""
    check(await harness.client.request(method, "/v1/sessions/a b"), "invalid_session_id")
    check(await harness.client.get("/v1/sessions/a b/predictions"), "invalid_session_id")


@pytest.mark.parametrize("name", ["events", "predictions"])
async def test_a_word_of_the_routes_is_an_id_like_any_other(harness: Harness, name: str) -> None:
    """A session may be called what a part of a path is called."""
    assert (await harness.send(name, "a")).json()["session_id"] == name
    assert (await harness.client.get(f"/v1/sessions/{name}")).json()["step"] == 1
    assert (await harness.client.get(f"/v1/sessions/{name}/predictions")).json()["step"] == 1
    assert (await harness.client.delete(f"/v1/sessions/{name}")).status_code == 204


async def test_every_allowed_character_makes_an_id(harness: Harness) -> None:
    """An id of 128 characters may use the whole alphabet."""
    name = ("AZaz09._:~-" * 12)[:128]
    assert (await harness.send(name, "a")).json()["session_id"] == name
    assert (await harness.client.get(f"/v1/sessions/{name}")).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_an_idempotency_key_has_a_form(harness: Harness, key: str) -> None:
    """A key that is empty, too long or not printable is refused."""
    response = await harness.client.post(EVENTS, content=b'{"items": ["a"]}', headers={"Idempotency-Key": key})
    assert "Idempotency-Key" in check(response, "invalid_request")["detail"]


async def test_an_idempotency_key_is_given_once(harness: Harness) -> None:
    """Two keys for one request are refused."""
    headers = [("Idempotency-Key", "k"), ("Idempotency-Key", "l")]
    response = await harness.client.post(EVENTS, content=b'{"items": ["a"]}', headers=headers)
    assert "2 times" in check(response, "invalid_request")["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/sessions/u"), ("DELETE", "/v1/sessions/u"), ("GET", "/v1/sessions/u/predictions")],
)
async def test_an_unknown_session_is_named(harness: Harness, method: str, path: str) -> None:
    """Asking about a session that is not held is answered 404 with its id."""
    assert check(await harness.client.request(method, path), "unknown_session")["session_id"] == "u"


@pytest.mark.parametrize("top_k", ["-1", "x", "1.5", ""])
async def test_the_query_is_checked(harness: Harness, top_k: str) -> None:
    """A top_k in the query that is no natural number is refused."""
    await harness.send("u", "a")
    response = await harness.client.get("/v1/sessions/u/predictions", params={"top_k": top_k})
    assert "top_k" in check(response, "invalid_request")["detail"]


@pytest.mark.parametrize(
    ("query", "said"), [("topk=1", "unknown field `topk`"), ("top_k=1&top_k=2", "once is allowed")]
)
async def test_the_query_has_known_parameters_once(harness: Harness, query: str, said: str) -> None:
    """A parameter that is misspelt or repeated is refused."""
    await harness.send("u", "a")
    response = await harness.client.get(f"/v1/sessions/u/predictions?{query}")
    assert said in check(response, "invalid_request")["detail"]


@pytest.mark.parametrize(
    "path", ["/index.html", "/console/", "/v1", "/v1/model/", "/v1/sessions", "/v1/sessions/u/nothing", "/v1/x/events"]
)
async def test_an_unknown_path_is_not_found(harness: Harness, path: str) -> None:
    """A path that leads nowhere is a problem like any other."""
    check(await harness.client.get(path), "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", EVENTS, "POST"),
        ("OPTIONS", EVENTS, "POST"),
        ("DELETE", "/v1/sessions/v/events", "POST"),
        ("POST", "/v1/sessions/u", "DELETE, GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/v1/predict", "POST"),
        ("POST", "/console/style.css", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(harness: Harness, method: str, path: str, allowed: str) -> None:
    """A method that a resource does not know is refused with those it knows, in Allow and in words."""
    response = await harness.client.request(method, path)
    detail = f'{method} is not allowed for "{path}"; allowed: {allowed}.'
    assert check(response, "method_not_allowed")["detail"] == detail
    assert response.headers["allow"] == allowed


async def test_a_fault_of_the_server_tells_the_client_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen exception is answered as `internal`, its text only logged."""

    def explode(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(harness.service, "perform", explode)
    for path in (EVENTS, "/v1/predict"):
        response = await harness.client.post(path, content=b'{"items": ["a"]}')
        check(response, "internal")
        assert "secret" not in response.text
    assert "secret detail" in caplog.text
