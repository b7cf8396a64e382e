"""Servers are killed, stopped in mid-batch, replaced one by one, and their clocks jump."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from ..serve.edge.proxies import nginx_of_replicas
from ..serve.stores.servers import Server, served
from ..waiting import until
from .trial import DEADLINE, PATIENCE, Replica, Seen, load

Serve = Callable[..., Replica]
Conclude = Callable[..., Seen]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
BALANCER_SECONDS = 6
"""Until nginx asks a server again that did not answer: `fail_timeout` in deploy/nginx-replicas.conf, and one more."""
UNANSWERED = 8
"""Most calls without an answer for each server that is replaced: the events of one stream. None were seen."""
FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)


@pytest.fixture
def store() -> Iterator[Server]:
    """A Redis that syncs every write."""
    with served("redis", *DURABLE) as server:
        yield server


def test_kill_9_of_servers_over_one_store(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, store: Server
) -> None:
    """While one server after the other is killed, the other goes on, and nothing acknowledged is lost."""
    address = f"redis://{store.address}/0"
    servers = [serve(address) for _ in range(2)]
    with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
        for place in (0, 1, 0):
            running.go_on()
            servers[place].stop()
            running.go_on(100)
            servers[place] = serve(address, port=servers[place].port)
        running.go_on()
    conclude(tmp_path / "history")


def test_a_server_that_stands_still_and_wakes(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, store: Server
) -> None:
    """Another server takes its sessions meanwhile; once it wakes, it answers nothing from what it held."""
    servers = [serve(f"redis://{store.address}/0") for _ in range(2)]
    with load(bundle, [server.url for server in servers], tmp_path / "history", workers=12) as running:
        for place in (0, 1, 0):
            running.go_on()
            servers[place].process.send_signal(signal.SIGSTOP)
            time.sleep(DEADLINE + 2)  # its clients go to the other one
            servers[place].process.send_signal(signal.SIGCONT)
            running.go_on()
    result = conclude(tmp_path / "history", silent=True)
    assert result.silent()


def test_all_servers_are_replaced_one_by_one(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, store: Server
) -> None:
    """Behind nginx each server is drained, stopped and started again, twice: nothing is lost, and each ends with 0."""
    flags = (f"redis://{store.address}/0", "--forwarded-allow-ips", "127.0.0.1")
    servers = [serve(*flags) for _ in range(2)]
    ports = [server.port for server in servers]
    with (
        nginx_of_replicas(tmp_path / "nginx", ports, by_session=False) as url,
        load(bundle, [url], tmp_path / "history") as running,
    ):
        for place in (0, 1, 0, 1):
            running.go_on()
            servers[place].process.terminate()
            assert servers[place].process.wait(PATIENCE) == 0
            servers[place] = serve(*flags, port=ports[place])
            time.sleep(BALANCER_SECONDS)
        running.go_on()
    result = conclude(tmp_path / "history")
    assert len(result.unknown()) <= 4 * UNANSWERED, [(call.lines, call.outcome.why) for call in result.unknown()]


class Clock:
    """The wall clock of servers, which a test moves; their monotonic one goes on by itself.

    Attributes:
        variables: what a server's environment must have.
    """

    def __init__(self, folder: Path) -> None:
        library = next(filter(os.path.exists, FAKETIME), None)
        if library is None:
            pytest.skip("libfaketime is not installed (Debian's package faketime)")
        self._file = folder / "faketime"
        self.move("+0")
        self.variables = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, jump: str) -> None:
        """Set the clock: `+2d` is two days ahead."""
        self._file.write_text(f"{jump}\n")


def _days_ahead(server: Replica) -> float:
    """How many days a server's clock is ahead of ours."""
    date = parsedate_to_datetime(httpx.get(f"{server.url}/healthz").headers["date"])
    return (date.timestamp() - time.time()) / 86400


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_servers_clock_jumps(
    bundle: Path,
    serve: Serve,
    conclude: Conclude,
    tmp_path: Path,
    store: Server,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two days forward and back again: no session ends by it, though few are held, so that most events load theirs."""
    address = f"sqlite:{tmp_path / 'sessions.db'}" if kind == "sqlite" else f"redis://{store.address}/0"
    clock = Clock(tmp_path)
    with monkeypatch.context() as environment:
        for name, value in clock.variables.items():
            environment.setenv(name, value)
        server = serve(address, "--max-sessions", "8")
    with load(bundle, [server.url], tmp_path / "history") as running:
        for jump, days in (("+2d", 2), ("-2d", -2), ("+0", 0)):
            running.go_on()
            clock.move(jump)
            until(lambda days=days: abs(_days_ahead(server) - days) < 0.1, pause=0.1)
        running.go_on()
    conclude(tmp_path / "history")
