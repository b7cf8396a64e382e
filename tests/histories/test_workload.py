"""The workload against real servers: a right one is found right, and one that forgets its sessions is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from ..serve.bundles import LABELS, write_bundle
from ..servers import ServerProcess
from .check import check
from .history import Call, read
from .replay import Replay
from .workload import drive

pytestmark = pytest.mark.cpu_only("a GPU's numbers are within 1e-5; these are compared bit for bit")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle."""
    return write_bundle(tmp_path_factory.mktemp("histories") / "bundle")


@pytest.fixture
def servers() -> Iterator[list[ServerProcess]]:
    """The servers that a test has started; they are stopped after it."""
    started: list[ServerProcess] = []
    yield started
    for server in started:
        server.stop()


def calls_of(sessions: dict[str, list[Call]]) -> list[Call]:
    """All calls of a history."""
    return [call for calls in sessions.values() for call in calls]


def test_a_servers_history_has_nothing_wrong(bundle: Path, servers: list[ServerProcess], tmp_path: Path) -> None:
    """Two seconds of everything that clients do leave a history that a right server explains, bit for bit."""
    servers.append(ServerProcess(bundle))
    file = tmp_path / "history.jsonl"
    asyncio.run(drive([servers[0].url], LABELS, file, seconds=2, seed=3))
    sessions = read(file)
    verdicts = check(Replay(bundle), sessions)
    assert not verdicts, "\n".join(map(str, verdicts))
    done = Counter((call.sent.via, call.ask.do) for call in calls_of(sessions) if call.ok)
    assert set(done) >= {("single", "advance"), ("bulk", "advance"), ("stream", "advance"), ("single", "restore")}
    refusals = Counter(call.code for call in calls_of(sessions))
    assert min(refusals["step_conflict"], refusals["idempotency_key_reused"], refusals["unknown_session"]) > 0
