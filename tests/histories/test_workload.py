"""The workload against real servers: a right one is found right, and one that forgets its sessions is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arraylstm_serve.api.problems import stopping

from ..conftest import ROOT
from ..serve.bundles import write_bundle
from ..serve.flaky import Fault, FlakyProxy
from ..servers import ServerProcess
from ..waiting import until
from .check import check
from .history import NEVER, Call, read
from .labels import labels_of
from .replay import Replay
from .workload import drive, main

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


def codes(calls: list[Call]) -> Counter[str]:
    """How often each code came."""
    return Counter(call.code for call in calls)


def test_a_servers_history_has_nothing_wrong(bundle: Path, servers: list[ServerProcess], tmp_path: Path) -> None:
    """Two seconds of everything that clients do leave a history that a right server explains, bit for bit."""
    servers.append(ServerProcess(bundle))
    file = tmp_path / "history.jsonl"
    asyncio.run(drive([servers[0].url], labels_of(bundle), file, seconds=2, seed=3))
    sessions = read(file)
    verdicts = check(Replay(bundle), sessions)
    assert not verdicts, "\n".join(map(str, verdicts))
    calls = calls_of(sessions)
    assert {call.sent.via for call in calls if call.ok} == {"single", "bulk", "stream"}
    assert {call.ask.do for call in calls if call.ok} >= {"advance", "inspect", "infer"}
    assert codes(calls)["step_conflict"] > 0
    assert any(call.sent.key and call.ok for call in calls)


def test_a_history_with_unknown_items_has_nothing_wrong(servers: list[ServerProcess], tmp_path: Path) -> None:
    """Clients send the unknown item, items that are not listed, and integers as text; a right server is found right."""
    bundle = write_bundle(tmp_path / "bundle", labels=["a", "b", "c", "d", "e", 5, "6"], unknown="e")
    servers.append(ServerProcess(bundle))
    file = tmp_path / "history.jsonl"
    asyncio.run(drive([servers[0].url], labels_of(bundle), file, seconds=2, seed=4))
    sessions = read(file)
    verdicts = check(Replay(bundle), sessions)
    assert not verdicts, "\n".join(map(str, verdicts))
    calls = calls_of(sessions)
    sent = {item for call in calls if call.ok for item in call.ask.items}
    assert sent >= {"e", "5", 6, "nobody", "y" * 4000}
    assert any("nobody" in call.outcome.body for call in calls if call.ok and call.ask.do == "inspect")


def test_the_workload_goes_on_through_lost_answers_and_refusals(
    bundle: Path, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """Behind a proxy that loses answers and says 503 by itself, outcomes are unknown, and still nothing is wrong.

    A second address has no server at all.
    """
    servers.append(ServerProcess(bundle))
    file = tmp_path / "history.jsonl"
    nobody = "http://127.0.0.1:1"
    with FlakyProxy(servers[0].port) as proxy:
        faults = [
            Fault(lose=True),
            Fault(status=503),
            Fault(frames=2, lost=1),
            Fault(status=503, body=stopping().body()),
        ]
        proxy.faults.extend([fault for other in faults for fault in (Fault(), other)] * 2000)
        asyncio.run(drive([proxy.url, proxy.url, nobody], labels_of(bundle), file, seconds=3, seed=5, timeout=1))
    sessions = read(file)
    verdicts = check(Replay(bundle), sessions)
    assert not verdicts, "\n".join(map(str, verdicts))
    calls = calls_of(sessions)
    lost = {(call.sent.session, call.sent.key) for call in calls if not call.known and call.sent.key}
    assert len(lost & {(call.sent.session, call.sent.key) for call in calls if call.ok}) > 3
    assert any(call.outcome.status == 0 and call.outcome.outcome == "refused" for call in calls)
    whys = {call.outcome.why for call in calls if call.outcome.status == 503 and not call.known}
    assert whys == {"the refusal says that it may have been applied", "the refusal is not the server's own"}


@contextmanager
def killed_workload(bundle: Path, url: str, file: Path) -> Iterator[None]:
    """The program drives a server for as long as the context lasts; then it is killed."""
    program: list[str | Path] = [sys.executable, "-m", "tests.histories.workload", bundle, url, "-o", file]
    with subprocess.Popen([*program, "--seconds", "600"], cwd=ROOT) as playing:
        try:
            yield
        finally:
            playing.kill()


def until_written(file: Path, size: int) -> None:
    """Wait until a history has so many bytes."""
    until(lambda: file.exists() and file.stat().st_size > size, pause=0.02)


def test_a_killed_server_without_a_store_has_lost_its_sessions(
    bundle: Path, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """The workload goes on with the next server, and the checker says that the sessions are lost.

    Where sessions may go, the same history is right.
    """
    servers.append(ServerProcess(bundle))
    port, file = servers[0].port, tmp_path / "history.jsonl"
    with killed_workload(bundle, servers[0].url, file):
        until_written(file, 200_000)
        servers[0].stop()  # kill -9
        servers.append(ServerProcess(bundle, port=port))
        until_written(file, file.stat().st_size + 400_000)
    sessions, replay = read(file), Replay(bundle)
    kinds = Counter(verdict.kind for verdict in check(replay, sessions))
    assert kinds["lost session"] > len(sessions) / 2, kinds
    assert not check(replay, sessions, forgetful=True)


def test_a_killed_workload_leaves_calls_of_unknown_outcome(
    bundle: Path, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """The program writes as it goes: what it leaves when it is killed is a history."""
    servers.append(ServerProcess(bundle))
    file = tmp_path / "history.jsonl"
    with killed_workload(bundle, servers[0].url, file):
        until_written(file, 100_000)
    sessions = read(file)
    assert any(call.done == NEVER for call in calls_of(sessions))
    assert not check(Replay(bundle), sessions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{bundle}", "127.0.0.1:8080", "-o", "{file}"], "'127.0.0.1:8080' is not an address"),
        (["{bundle}", "http://127.0.0.1:1", "-o", "{file}", "--seconds", "-1"], "-1 is not allowed"),
        (["{bundle}", "http://127.0.0.1:1", "-o", "{file}", "--workers", "0"], "--workers is 0"),
        (["{file}", "http://127.0.0.1:1", "-o", "{file}"], "vocabulary.json: No such file"),
        (["{bundle}", "http://127.0.0.1:1", "-o", "{bundle}/no/file"], "no/file: No such file"),
    ],
)
def test_bad_input_is_refused_with_its_value(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """The status is 2, and nothing is driven."""
    texts = [text.format(bundle=bundle, file=tmp_path / "file") for text in arguments]
    try:
        status: object = main(texts)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err
