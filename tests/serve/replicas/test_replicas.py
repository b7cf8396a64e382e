"""`arraylstm-serve --replicas`, with real servers, a real Redis and a real nginx."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx
import pytest

from arraylstm_serve.http.auth import make_key

from ...waiting import until
from ..answers import near
from ..bundles import LABELS, expected_predictions, write_bundle
from ..commands import run
from ..harness import predictions
from ..stores.conftest import DURABLE
from ..stores.servers import free_port, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these tests look for processes in /proc")
ITEMS = [LABELS[place % len(LABELS)] for place in range(21)]


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody listens on."""
    while True:
        first = free_port()
        if not any(_listens(port) for port in range(first, first + count)):
            return first


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Replicas:
    """Two replicas, and what they print."""

    def __init__(self, bundle: Path, *flags: str) -> None:
        self.port, self.admin = free_ports(2), free_ports(2)
        ports = ("--port", str(self.port), "--admin-port", str(self.admin))
        command = [sys.executable, "-m", "arraylstm_serve", str(bundle), "--replicas", "2", *ports]
        self.process = subprocess.Popen(
            [*command, "--device", "cpu", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self.logged: list[str] = []
        streams = (self.process.stdout, self.said), (self.process.stderr, self.logged)
        self.readers = [threading.Thread(target=_read, args=one) for one in streams]
        for reader in self.readers:
            reader.start()
        self.url = f"http://127.0.0.1:{self.port}"

    def until_ready(self) -> None:
        """Wait for the greeting of all."""
        last_line = re.compile(rf"by nginx, which|:{self.port + 1}\" max_fails")
        until(lambda: self.process.poll() is not None or last_line.search(self.greeting), pause=0.02)
        assert self.process.poll() is None, self.logged

    @property
    def greeting(self) -> str:
        """What is said once all are ready."""
        said = list(self.said)
        place = next((place for place, line in enumerate(said) if "replicas are ready" in line), len(said))
        return "".join(said[place:])

    def pids(self) -> list[int]:
        """The processes of the replicas and of nginx."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def pid_of(self, words: str) -> int:
        """The process that has some words in its command."""
        for pid in self.pids():
            if words in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                return pid
        raise AssertionError(f"no {words} among {self.pids()}")

    def answered(self) -> list[int]:
        """How many events each replica has applied."""
        texts = [httpx.get(f"http://127.0.0.1:{self.admin + place}/metrics").text for place in range(2)]
        counts = [re.findall(r"^arraylstm_session_events_total (\S+)", text, re.MULTILINE) for text in texts]
        return [int(float(count)) for (count,) in counts]

    def end(self) -> None:
        """End everything that is still there."""
        pids = [] if self.process.poll() is not None else self.pids()
        self.process.kill()
        self.process.wait()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        for reader in self.readers:
            reader.join()


def _read(stream: IO[str], lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis."""
    with served("redis", *DURABLE) as redis:
        yield f"redis://{redis.address}/0"


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Replicas]:
    """Two replicas that are ready."""
    replicas = Replicas(write_bundle(folder / "bundle"), *flags)
    try:
        replicas.until_ready()
        yield replicas
    finally:
        replicas.end()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of API keys, with one key in it."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(make_key("first")[1] + "\n")
    return path


@pytest.fixture(scope="module")
def balanced(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two replicas behind nginx. They write JSON."""
    with ExitStack() as stack:
        flags = ("--sessions", redis_url, "--balancer", "nginx", "--log-format", "json")
        yield stack.enter_context(running(tmp_path_factory.mktemp("balanced"), *flags))


def send(replicas: Replicas, name: str, step: int) -> httpx.Response:
    """Send a session its next item, under a key."""
    return httpx.post(
        f"{replicas.url}/v1/sessions/{name}/events",
        json={"items": [ITEMS[step]], "expected_step": step},
        headers={"Idempotency-Key": f"{name}-{step}"},
        timeout=60,
    )


def test_all_are_ready_before_it_says_so(balanced: Replicas) -> None:
    """The last lines say where nginx is; before them each replica has said its own, with its number."""
    assert f"serving   http://127.0.0.1:{balanced.port} by nginx" in balanced.greeting
    before = [line for line in balanced.said if line.startswith("[")]
    assert {line[:4] for line in before} == {"[0] ", "[1] "}
    assert len([line for line in before if "serving   unix:" in line]) == 2


def test_a_session_stays_on_one_replica(balanced: Replicas) -> None:
    """Answers are the model's; each session's requests reach one replica, and both have some."""
    owners = []
    for number in range(8):
        before = balanced.answered()
        for step in range(2):
            answer = send(balanced, f"s{number}", step).json()
            assert predictions(answer) == near(expected_predictions(ITEMS[: step + 1]))
        owners.append([now - then for now, then in zip(balanced.answered(), before, strict=True)])
    assert {tuple(owner) for owner in owners} == {(0, 2), (2, 0)}


def test_lines_tell_the_replicas_apart(balanced: Replicas) -> None:
    """Each line of JSON has its replica's number."""

    def numbers() -> set[int]:
        return {json.loads(line).get("replica") for line in list(balanced.logged) if "sessions are kept in" in line}

    until(lambda: numbers() == {0, 1}, pause=0.02)


def test_a_killed_replica_is_started_again(balanced: Replicas) -> None:
    """While one replica is gone its sessions go on with the other; it comes back, and a line says why it was gone."""
    answers = [send(balanced, f"k{number}", 0).status_code for number in range(6)]
    os.kill(balanced.pid_of("arraylstm_serve"), signal.SIGKILL)

    def go_on(number: int) -> bool:
        # A request that was under way may have got 502; the key makes its repetition safe.
        return send(balanced, f"k{number}", 1).status_code == 200

    for number in range(6):
        until(lambda number=number: go_on(number), pause=0.1)
    assert answers == [200] * 6
    until(lambda: len([line for line in balanced.said if "serving   unix:" in line]) == 3, pause=0.1)
    events = [json.loads(line)["message"] for line in list(balanced.logged) if line.startswith("{")]
    assert any(re.fullmatch(r"replica \d was ended by SIGKILL; it is started again in 1 s", text) for text in events)


def test_a_killed_nginx_is_started_again(balanced: Replicas) -> None:
    """Its workers, which outlive it, are ended; another nginx takes the port over."""
    before = balanced.pid_of("nginx")
    os.kill(before, signal.SIGKILL)
    until(lambda: any("nginx was ended by SIGKILL" in line for line in list(balanced.logged)), pause=0.05)
    until(lambda: before not in balanced.pids() and len(balanced.pids()) == 3, pause=0.05)
    until(lambda: _status(balanced) == 200, pause=0.05)
    assert balanced.pid_of("nginx") != before


def _status(replicas: Replicas) -> int:
    try:
        return httpx.get(f"{replicas.url}/healthz").status_code
    except httpx.TransportError:
        return 0


def test_sigterm_drains_all(balanced: Replicas) -> None:
    """What was accepted is answered, all processes end, and the status is 0; acknowledged steps are in the store."""
    until(lambda: _status(balanced) == 200, pause=0.05)

    def talk(name: str) -> int:
        for step in range(len(ITEMS)):
            try:
                answer = send(balanced, name, step)
            except httpx.TransportError:  # nginx listens no more, and has not taken this one
                return step
            assert answer.status_code == 200, answer.text
        return len(ITEMS)

    pids = balanced.pids()
    assert len(pids) == 3
    with ThreadPoolExecutor(4) as threads:
        talks = [threads.submit(talk, f"drained{number}") for number in range(4)]
        until(lambda: sum(balanced.answered()) > 8, pause=0.02)
        balanced.process.send_signal(signal.SIGTERM)
        for one in talks:
            one.result()
    assert balanced.process.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any("Traceback" in line for line in balanced.logged)


def test_without_nginx_each_has_a_port(redis_url: str, keys: Path, tmp_path: Path) -> None:
    """They listen at ports in a row, and the greeting says how to balance; SIGHUP reaches both; kill -9 ends both."""
    flags = ("--sessions", f"{redis_url}?prefix=other", "--balancer", "none", "--api-keys", str(keys))
    with running(tmp_path, *flags) as replicas:
        urls = [f"http://127.0.0.1:{replicas.port + place}" for place in range(2)]
        for place, url in enumerate(urls):
            assert f'server "127.0.0.1:{replicas.port + place}" max_fails=1' in replicas.greeting
            assert httpx.get(f"{url}/v1/stats").status_code == 401
        second, line = make_key("second")
        keys.write_text(keys.read_text() + line + "\n")
        replicas.process.send_signal(signal.SIGHUP)
        for url in urls:
            until(lambda url=url: httpx.get(f"{url}/v1/stats", headers={"X-API-Key": second}).status_code == 200)
        until(lambda: {line[:4] for line in list(replicas.logged) if "read again" in line} == {"[0] ", "[1] "})
        pids = replicas.pids()
        replicas.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), pause=0.05)


def test_a_fault_is_told_once(tmp_path: Path) -> None:
    """A store that nobody answers at ends the start with status 2: one replica says why, the others are not started."""
    ports = ("--port", str(free_ports(2)), "--balancer", "none")
    bundle = write_bundle(tmp_path / "bundle")
    done = run(str(bundle), "--replicas", "2", *ports, "--sessions", "redis://127.0.0.1:1/0", "--store-timeout", "0.2")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("[0] arraylstm-serve: ")
    assert "127.0.0.1:1" in first
    assert second == (
        "arraylstm-serve: replica 0 has ended with status 2 before it was ready; the lines above say why."
    )
