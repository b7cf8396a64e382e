"""API keys that tests use, and an application that asks for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from .harness import Harness

ALICE, BOB = "alice's-own-key", "bob's-own-key"


def line(name: str, key: str) -> str:
    """A line of the file."""
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"


def write(path: Path, text: str) -> Path:
    """A file of keys."""
    file = path / "keys"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def guarded(bundle_path: Path, tmp_path: Path) -> Harness:
    """The application, which lets Alice, who has two keys, and Bob in."""
    keys = write(tmp_path, line("alice", ALICE) + line("bob", BOB) + line("alice", "another"))
    return Harness(bundle_path, api_keys=keys)


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


async def everything(client: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, httpx.Response]:
    """An answer of every protected operation, for the session u."""
    event: dict[str, Any] = {"items": ["a"]}
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/v1/sessions/u", None),
        ("GET", "/v1/sessions/u/predictions", None),
        ("GET", "/v1/sessions/u/state", None),
        ("PUT", "/v1/sessions/u/state", None),
        ("DELETE", "/v1/sessions/u", None),
        ("POST", "/v1/sessions/u/events", event),
        ("POST", "/v1/events", {"events": [event | {"session_id": "u"}]}),
        ("POST", "/v1/predict", event),
        ("GET", "/v1/model", None),
        ("GET", "/v1/stats", None),
        ("GET", "/v1/stream", None),
        ("GET", "/metrics", None),
        ("GET", "/v1/nothing", None),
        ("GET", "/v2/health/ready", None),
    ]
    return {
        f"{method} {path}": await client.request(method, path, json=body, headers=headers)
        for method, path, body in requests
    }
