"""Bodies that are compressed, or are JSON in another encoding than UTF-8."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from ..answers import check
from ..bundles import write_bundle
from ..harness import Harness

pytestmark = pytest.mark.anyio

EVENT = {"items": ["a", "b"]}
ENDPOINTS: dict[str, tuple[str, str, Any]] = {
    "events": ("POST", "/v1/sessions/u/events", EVENT),
    "predict": ("POST", "/v1/predict", EVENT),
    "bulk": ("POST", "/v1/events", {"events": [{"session_id": "u", **EVENT}]}),
    "infer": (
        "POST",
        "/v2/models/arraylstm/infer",
        {"inputs": [{"name": "items", "shape": [2], "datatype": "INT64", "data": [0, 1]}]},
    ),
}
COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "GZIP": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("name", ENDPOINTS)
async def test_a_compressed_body_is_the_same_request(bundle_path: Path, name: str, encoding: str) -> None:
    """Every endpoint answers a compressed body as it answers the same body in plain."""
    method, path, body = ENDPOINTS[name]
    plain, compressed = Harness(bundle_path), Harness(bundle_path)
    expected = await plain.client.request(method, path, json=body)
    content = COMPRESS[encoding](json.dumps(body).encode())
    answer = await compressed.client.request(method, path, content=content, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.content) == (200, expected.content)


async def test_a_compressed_state_is_restored(harness: Harness) -> None:
    """A state file may come compressed too."""
    await harness.send("u", "a", "b")
    state = (await harness.client.get("/v1/sessions/u/state")).content
    headers = {"Content-Encoding": "gzip"}
    answer = await harness.client.put("/v1/sessions/v/state", content=gzip.compress(state), headers=headers)
    assert (answer.status_code, answer.json()["step"]) == (200, 2)


@pytest.mark.parametrize("name", ENDPOINTS)
async def test_a_bomb_is_too_large(harness: Harness, name: str) -> None:
    """A body that decompresses to more than the bound is 413, and moves nothing."""
    method, path, _ = ENDPOINTS[name]
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < harness.service.settings.max_body
    answer = await harness.client.request(method, path, content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert len(harness.service.sessions) == 0


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate, br", ""])
async def test_another_encoding_is_told_those_there_are(harness: Harness, encoding: str) -> None:
    """Encodings that the server does not know are 415, with those that it knows in Accept-Encoding."""
    method, path, body = ENDPOINTS["events"]
    answer = await harness.client.request(method, path, json=body, headers={"Content-Encoding": encoding})
    assert json.dumps(encoding) in check(answer, "unsupported_encoding")["detail"]
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    assert len(harness.service.sessions) == 0


async def test_identity_is_no_encoding(harness: Harness) -> None:
    """Content-Encoding identity is a plain body."""
    method, path, body = ENDPOINTS["events"]
    answer = await harness.client.request(method, path, json=body, headers={"Content-Encoding": "identity"})
    assert answer.json()["step"] == 2


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-8-sig", "byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32"),
    ],
)
@pytest.mark.parametrize("name", ENDPOINTS)
async def test_json_that_is_not_utf8_is_named(harness: Harness, name: str, encoding: str, named: str) -> None:
    """A byte order mark, UTF-16 and UTF-32 are named as what they are, and UTF-8 as what is allowed."""
    method, path, body = ENDPOINTS[name]
    answer = await harness.client.request(method, path, content=json.dumps(body).encode(encoding))
    assert answer.status_code == 400
    assert named in answer.text
    assert "send UTF-8" in answer.text


@pytest.mark.parametrize("session_id", [".", ".."])
async def test_an_id_that_a_path_cannot_carry_is_refused(tmp_path: Path, session_id: str) -> None:
    """The ids . and .. are refused wherever they come from: clients take them for steps in a path."""
    harness = Harness(write_bundle(tmp_path / "bundle"))
    event = {"session_id": session_id, "items": ["a"]}
    results = (await harness.client.post("/v1/events", json={"events": [event]})).json()
    assert results["code"] == "invalid_request"
    sequence = {**ENDPOINTS["infer"][2], "parameters": {"sequence_id": session_id, "sequence_start": True}}
    assert (await harness.client.post("/v2/models/arraylstm/infer", json=sequence)).status_code == 400
    scope_path = f"/v1/sessions/%2E{session_id[1:].replace('.', '%2E')}"
    assert (await harness.client.get(scope_path)).status_code in (404, 422)
    assert len(harness.service.sessions) == 0
