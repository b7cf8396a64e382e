"""Real servers over real stores: what was answered is there after kill -9, and two servers are as one."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ..servers import ServerProcess, Start
from ..waiting import until
from .answers import near
from .bundles import LABELS, expected_predictions
from .commands import run
from .harness import predictions
from .stores.servers import Server

ITEMS = [LABELS[index % len(LABELS)] for index in range(200)]


def post(server: ServerProcess, session: str, step: int) -> httpx.Response:
    """Send a session its next item, under a key."""
    return httpx.post(
        f"{server.url}/v1/sessions/{session}/events",
        json={"items": [ITEMS[step]], "expected_step": step},
        headers={"Idempotency-Key": f"{session}-{step}"},
        timeout=30,
    )


def talk(server: ServerProcess, session: str, first: int = 0) -> int:
    """Send items one after the other until the server is gone; return how many steps were answered."""
    for step in range(first, len(ITEMS)):
        try:
            answer = post(server, session, step)
        except httpx.TransportError:
            return step
        assert answer.status_code == 200, answer.text
        assert answer.json()["step"] == step + 1
    return len(ITEMS)


def test_kill_9_in_mid_load_loses_no_answered_step(start_server: Start, tmp_path: Path) -> None:
    """After kill -9 under load and a restart, each session stands at its last answered step, or one further.

    It is one further where the answer was cut off; the same key then gets that answer.
    """
    flags = ("--sessions", f"sqlite:{tmp_path / 'sessions.db'}")
    server = start_server(*flags)
    names = [f"s{n}" for n in range(8)]
    with ThreadPoolExecutor(len(names)) as threads:
        talks = [threads.submit(talk, server, name) for name in names]
        until(lambda: post_count(server) > 100)
        server.process.kill()
        answered = [one.result() for one in talks]
    assert max(answered) > 3
    server = start_server(*flags)
    for name, steps in zip(names, answered, strict=True):
        stands = httpx.get(f"{server.url}/v1/sessions/{name}").json().get("step", 0)
        assert stands in (steps, steps + 1)
        again = post(server, name, steps)  # the same key as the request that was cut off
        assert again.json()["step"] == steps + 1
        assert again.json()["state"] == ("continued" if steps else "new")
        assert predictions(again.json()) == near(expected_predictions(ITEMS[: steps + 1]))


def post_count(server: ServerProcess) -> int:
    """How many events the server has applied."""
    count: int = httpx.get(f"{server.url}/v1/stats").json()["events_total"]
    return count


@pytest.fixture(params=["redis", "valkey"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A real Redis or Valkey that syncs every write."""
    server = Server(request.param, tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.process.kill()
    server.process.wait()


def test_two_servers_over_one_store_are_as_one(start_server: Start, shared: Server) -> None:
    """Sessions whose requests go to two servers in turn get the model's answers; one server's kill -9 loses nothing."""
    flags = ("--sessions", f"redis://{shared.address}/0")
    servers = [start_server(*flags) for _ in range(2)]
    assert f"kept in redis://{shared.address}/0" in servers[0].greeting
    turns = itertools.cycle(servers)
    for step in range(20):
        for name in ("u", "v"):
            answer = post(next(turns), name, step).json()
            assert answer["step"] == step + 1
            assert predictions(answer) == near(expected_predictions(ITEMS[: step + 1]))
        if step % 5 == 0:
            next(turns)
    servers[0].process.kill()
    for step in range(20, 30):
        assert post(servers[1], "u", step).json()["step"] == step + 1
    assert httpx.get(f"{servers[1].url}/v1/sessions/v").json()["step"] == 20


def test_without_its_store_a_server_says_so_and_goes_on_later(start_server: Start, shared: Server) -> None:
    """While the store is killed, requests are 503 and the server is not ready; after its restart nothing is lost."""
    server = start_server("--sessions", f"redis://{shared.address}/0", "--store-timeout", "0.5")
    for step in range(5):
        assert post(server, "u", step).status_code == 200
    shared.process.kill()
    shared.process.wait()
    refused = post(server, "u", 5)
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "store unavailable"}
    shared.start()
    answer = post(server, "u", 5).json()
    assert (answer["step"], answer["state"]) == (6, "continued")
    assert predictions(answer) == near(expected_predictions(ITEMS[:6]))
    server.process.terminate()
    assert server.process.wait(30) == 0


def test_a_file_belongs_to_one_server(start_server: Start, bundle_path: Path, tmp_path: Path) -> None:
    """A second server on the same file does not start, and says why; the first one goes on."""
    path = tmp_path / "sessions.db"
    server = start_server("--sessions", f"sqlite:{path}")
    assert post(server, "u", 0).status_code == 200
    done = run(str(bundle_path), "--port", "0", "--sessions", f"sqlite:{path}")
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert done.stderr.count("\n") == 1
    assert post(server, "u", 1).status_code == 200
    server.process.terminate()
    assert server.process.wait(30) == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://db", "mysql"),
        ("sqlite:", "sqlite:PATH"),
        ("redis://127.0.0.1:1/0", "127.0.0.1:1"),
        ("redis://me:secret@127.0.0.1:1/0", "127.0.0.1:1"),
        ("sqlite:/nowhere/at/all.db", "/nowhere/at/all.db"),
    ],
)
def test_a_store_that_cannot_be_used_is_a_clear_fault(bundle_path: Path, text: str, said: str) -> None:
    """The start ends with one line that names the store and hides passwords."""
    done = run(str(bundle_path), "--port", "0", "--sessions", text, "--store-timeout", "0.2")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
