"""The application in the test's own process, with the engine and the clock in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from arraylstm_serve.api import Application
from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.bundle import Bundle
from arraylstm_serve.engine import open_engine
from arraylstm_serve.service import Service
from arraylstm_serve.settings import Settings


class Engine:
    """The real engine, with a hook before each run that may look, act or raise."""

    def __init__(self, bundle: Bundle) -> None:
        self._engine = open_engine(bundle, "cpu", 1)
        self.before: Callable[[Integers], None] = lambda items: None
        self.poison: int | None = None

    def run(self, items: Integers, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Step; rows of the item `poison` get logits that are not numbers."""
        self.before(items)
        logits, next_states = self._engine.run(items, states)
        logits[items == self.poison] = np.nan
        return logits, next_states


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


class Harness:
    """An application, a client for it, and what the test may turn."""

    def __init__(self, bundle_path: Path, **settings: Any) -> None:
        bundle = Bundle.load(bundle_path)
        self.engine = Engine(bundle)
        self.clock = Clock()
        self.service = Service(bundle, self.engine, Settings(**settings), self.clock)
        self.app = Application(self.service)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def send(self, session_id: str, *items: Any, key: str | None = None, **fields: Any) -> httpx.Response:
        """POST items to a session."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"items": list(items), **fields}
        return await self.client.post(f"/v1/sessions/{session_id}/events", json=body, headers=headers)

    async def settle(self) -> None:
        """Let the loop run until nothing is pending."""
        while self.service.pending:
            await asyncio.sleep(0)


def predictions(answer: dict[str, Any]) -> list[tuple[Any, float]]:
    """An answer's predictions as pairs."""
    return [(entry["item"], entry["probability"]) for entry in answer["predictions"]]


def observed(answer: dict[str, Any]) -> list[tuple[float | None, int | None]]:
    """An answer's observations as pairs of probability and rank."""
    return [(entry["probability"], entry["rank"]) for entry in answer["observed"]]
