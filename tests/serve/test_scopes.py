"""Scopes of API keys: what each allows, over every operation and protocol."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from arraylstm_serve.admin import ENDPOINTS as ADMIN_ENDPOINTS
from arraylstm_serve.admin import AdminApplication
from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.application import OPERATIONS
from arraylstm_serve.errors import StartupError
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.door import Door
from arraylstm_serve.http.endpoints import Endpoint

from .answers import check
from .commands import Refusal, run
from .harness import Harness, listening
from .keys import bearer, line, write

EVERYTHING, READER, WATCHER = "the-whole-key", "the-reader's-key", "the-watcher's-key"
FILE = line("shop", EVERYTHING) + "".join(
    f"{line('shop', key).strip()} {scope}\n" for key, scope in ((READER, "read-only"), (WATCHER, "metrics"))
)

OPEN = {"GET /healthz", "GET /readyz"}
METRICS = {"GET /metrics", "GET /v1/stats"}
READ_ONLY = METRICS | {
    "GET /v1/sessions/{session_id}",
    "GET /v1/sessions/{session_id}/predictions",
    "GET /v1/sessions/{session_id}/state",
    "GET /v1/model",
    "GET /v1/vocabulary",
    "POST /v1/predict",
    "GET /v2",
    "GET /v2/health/live",
    "GET /v2/health/ready",
    "GET /v2/models/{model}",
    "GET /v2/models/{model}/ready",
    "GET /v2/models/{model}/config",
    "GET /v2/models/{model}/versions/{version}",
    "GET /v2/models/{model}/versions/{version}/ready",
    "GET /v2/models/{model}/versions/{version}/config",
}
"""Everything that a read-only key may do. An operation that is not listed here is refused to it."""
ALLOWED = {WATCHER: METRICS, READER: READ_ONLY}


@pytest.fixture
def guarded(bundle_path: Path, tmp_path: Path) -> Harness:
    """The application, with a key of each scope for one name."""
    return Harness(bundle_path, api_keys=write(tmp_path, FILE))


def named(operation: Operation) -> str:
    """An operation's method and path."""
    return f"{operation.method} {operation.path}"


def filled(path: str) -> str:
    """A path with values for its parameters."""
    return path.replace("{session_id}", "u").replace("{model}", "arraylstm").replace("{version}", "1")


@pytest.mark.anyio
@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
async def test_every_operation_heeds_scopes(guarded: Harness, operation: Operation) -> None:
    """A key is refused with 403 exactly what its scope does not allow, and changes nothing by it."""
    await guarded.client.post("/v1/sessions/u/events", json={"items": ["a"]}, headers=bearer(EVERYTHING))
    before = len(guarded.service.sessions), guarded.service.counters.changes["events"]
    for key, allowed in ALLOWED.items():
        response = await guarded.client.request(operation.method, filled(operation.path), headers=bearer(key))
        assert (response.status_code == 403) == (named(operation) not in allowed | OPEN)
        assert response.status_code != 401
    assert (len(guarded.service.sessions), guarded.service.counters.changes["events"]) == before
    whole = await guarded.client.request(operation.method, filled(operation.path), headers=bearer(EVERYTHING))
    assert whole.status_code not in (401, 403)


def test_the_lists_are_of_operations() -> None:
    """What the tests call allowed is there."""
    assert set(map(named, OPERATIONS)) > READ_ONLY | OPEN


@pytest.fixture
def admin(guarded: Harness) -> httpx.AsyncClient:
    """A client of the admin listener's application, which asks for the same keys."""
    app = AdminApplication(guarded.service, guarded.service.settings.of_admin, guarded.keys)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.anyio
@pytest.mark.parametrize("operation", [endpoint.operation for endpoint in ADMIN_ENDPOINTS], ids=named)
async def test_the_admin_listener_heeds_scopes(
    admin: httpx.AsyncClient, guarded: Harness, operation: Operation
) -> None:
    """Of the admin listener's operations, limited keys may read metrics and probes, and change nothing."""
    for key in ALLOWED:
        response = await admin.request(operation.method, operation.path, headers=bearer(key))
        assert (response.status_code == 403) == (named(operation) not in METRICS | OPEN)
        assert not guarded.service.draining
    whole = await admin.request(operation.method, operation.path, headers=bearer(EVERYTHING))
    assert whole.status_code == (400 if operation.body else 200)  # what has a body lacks one here


@pytest.mark.anyio
@pytest.mark.parametrize(("key", "words"), [(READER, "changes nothing"), (WATCHER, "GET /metrics and GET /v1/stats")])
@pytest.mark.parametrize("path", ["/v1/sessions/u/events", "/v1/events", "/v2/models/arraylstm/infer"])
async def test_a_refusal_names_the_scope(guarded: Harness, path: str, key: str, words: str) -> None:
    """The refusal has the key's name and scope, and what the scope allows, in the path's protocol; not the key."""
    response = await guarded.client.post(path, json={"items": ["a"]}, headers=bearer(key))
    if path.startswith("/v2"):
        assert (response.status_code, set(response.json())) == (403, {"error"})
        detail = response.json()["error"]
    else:
        detail = check(response, "forbidden")["detail"]
    assert f"API key of shop has the scope {'read-only' if key == READER else 'metrics'}, " in detail
    assert words in detail
    assert key not in detail


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/sessions/a/b/events"),
        ("PUT", "/v1/sessions/u/events"),
        ("POST", "/v1/sessions//events"),
        ("POST", "/v1/model"),
        ("OPTIONS", "/v1/predict"),
        ("PATCH", "/v1/sessions/u"),
        ("GET", "/v1/nothing"),
        ("POST", "/v2/nothing"),
        ("GET", "/v1/stream"),
    ],
)
async def test_what_is_no_operation_is_refused_too(guarded: Harness, method: str, path: str) -> None:
    """Paths and methods that no list has are not for limited keys, whatever a later version may answer there."""
    for key in ALLOWED:
        response = await guarded.client.request(method, path, headers=bearer(key))
        assert response.status_code == 403, path


@pytest.mark.anyio
async def test_a_head_is_as_its_get(guarded: Harness) -> None:
    """HEAD needs the scope that GET does."""
    for key, statuses in ((READER, (200, 200)), (WATCHER, (403, 200))):
        found = [
            (await guarded.client.head(path, headers=bearer(key))).status_code for path in ("/v1/model", "/metrics")
        ]
        assert tuple(found) == statuses


@pytest.mark.anyio
async def test_a_route_that_names_no_scope_is_for_whole_keys(guarded: Harness) -> None:
    """A new operation, whose author has forgotten scopes, is refused to limited keys."""

    async def answer(*_: Any) -> Response:
        return Response("done")

    for method in ("GET", "POST"):
        operation = Operation(method=method, path="/v1/new", name="new", summary="New.", answers={200: str})
        door = Door(
            guarded.service, guarded.service.settings, guarded.keys, [Endpoint(operation, answer)], {"title": "a"}
        )
        client = httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://localhost")
        found = [
            (await client.request(method, "/v1/new", headers=bearer(key))).status_code
            for key in (READER, WATCHER, EVERYTHING)
        ]
        assert found == [403, 403, 200]


@pytest.fixture
async def address(guarded: Harness) -> AsyncIterator[str]:
    """Where the guarded application listens."""
    async with listening(guarded) as address:
        yield f"ws://{address}"


@pytest.mark.anyio
@pytest.mark.parametrize("key", [READER, WATCHER])
@pytest.mark.parametrize("path", ["/v1/stream", "/v1/model", "/healthz"])
async def test_a_stream_needs_a_whole_key(address: str, key: str, path: str) -> None:
    """Events change sessions, so a limited key is refused at the handshake, at every path."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{address}{path}", additional_headers=bearer(key))
    assert refused.value.response.status_code == 403
    assert b'"code":"forbidden"' in refused.value.response.body


@pytest.mark.anyio
async def test_reading_is_of_the_names_own_sessions(guarded: Harness, tmp_path: Path) -> None:
    """A read-only key sees what the other keys of its name have done."""
    await guarded.client.post("/v1/sessions/u/events", json={"items": ["a", "b"]}, headers=bearer(EVERYTHING))
    assert (await guarded.client.get("/v1/sessions/u", headers=bearer(READER))).json()["step"] == 2


DIGEST = "0" * 64
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"alice {DIGEST} write\n", "line 1 is not a name of"),
        (f"alice {DIGEST} read-only metrics\n", "line 1 is not"),
        (f"alice {DIGEST} READ-ONLY\n", "scopes metrics, read-only, everything"),
        (f"alice {DIGEST}read-only\n", "line 1 is not"),
        (f"alice read-only {DIGEST}\n", "line 1 is not"),
        (f"alice {DIGEST}\nalice {DIGEST} metrics\n", "two scopes, everything in line 1 and metrics in line 2"),
        (
            f"alice {DIGEST} metrics\n#\nalice {DIGEST} read-only\n",
            "two scopes, metrics in line 1 and read-only in line 3",
        ),
        (f"alice {DIGEST} metrics\nbob {DIGEST} metrics\n", "to two names, alice in line 1 and bob in line 2"),
    ],
)
def test_a_line_with_a_wrong_scope_is_a_fault(tmp_path: Path, text: str, said: str) -> None:
    """An unknown scope, or two for one key, is told by the line's number; the line itself is not shown."""
    with pytest.raises(StartupError, match=said) as error:
        Keys(write(tmp_path, text))
    assert DIGEST not in str(error.value)
    assert "write" not in str(error.value).replace("rewrite", "")


@pytest.mark.parametrize("word", ["", " everything", "\teverything  ", " read-only", "  metrics"])
def test_a_scope_is_read(tmp_path: Path, word: str) -> None:
    """The third word is the scope; without one the key allows everything."""
    key = Keys(write(tmp_path, f"alice {OTHER}{word}\n")).find("other")
    assert (key.name, key.scope) == ("alice", word.strip() or "everything")


@pytest.mark.parametrize(
    ("flags", "scope"), [((), ""), (("--scope", "read-only"), "read-only"), (("--scope", "metrics"), "metrics")]
)
def test_make_key_writes_the_scope(tmp_path: Path, flags: tuple[str, ...], scope: str) -> None:
    """`make-key NAME --scope SCOPE` prints a line that the file may have; the key has that scope."""
    done = run("make-key", "shop", *flags)
    assert done.returncode == 0
    assert done.stdout.split()[2:] == scope.split()
    key = Keys(write(tmp_path, done.stdout)).find(done.stderr.split()[-1])
    assert key.scope == (scope or "everything")


def test_make_key_knows_its_scopes(refusal: Refusal) -> None:
    """Another scope is refused with what is allowed."""
    said = refusal("make-key", "shop", "--scope", "write", COLUMNS="200")
    for word in ("--scope", "write", "metrics", "read-only", "everything"):
        assert word in said


def test_an_operation_knows_its_refusals() -> None:
    """The description of an operation says 403 `forbidden` where some key may not do it."""
    for operation in OPERATIONS:
        forbidden = "forbidden" in [kind.code for kind in operation.refusals]
        assert forbidden == (named(operation) not in METRICS | OPEN)
    assert "forbidden" not in [kind.code for kind in replace(OPERATIONS[0], path="/open").refusals]
