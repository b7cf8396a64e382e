"""The command and the process: start, fault, drain, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from arraylstm_serve import cli

from ..servers import ServerProcess
from .bundles import FINGERPRINT

Start = Callable[..., ServerProcess]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "arraylstm_serve", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )


def test_the_greeting_says_what_is_served_and_where(start_server: Start) -> None:
    """The start-up lines name model, device, bound and the real port; the server there is ready."""
    server = start_server("--max-sessions", "12")
    for words in (FINGERPRINT, "tiny, 7 items", "CPUExecutionProvider", "at most 12", f"{server.url}/docs"):
        assert words in server.greeting
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_what_is_in_flight(start_server: Start, number: signal.Signals) -> None:
    """Told to stop amid a request, the server accepts no further ones, finishes this one and exits with 0."""
    server = start_server()
    body = b'{"items":["a","b"]}'
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:5])
        httpx.get(f"{server.url}/healthz")
        server.process.send_signal(number)
        while accepts(server.port):
            pass
        client.sendall(body[5:])
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"step":2' in answer
    assert server.process.wait() == 0
    assert server.process.communicate()[1] == ""


def accepts(port: int) -> bool:
    """Whether anybody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_a_stuck_client_does_not_keep_the_server(start_server: Start) -> None:
    """A request that never ends is given up after shutdown_timeout, and the exit status is 0 still."""
    server = start_server("--shutdown-timeout", "1")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        httpx.get(f"{server.url}/healthz")
        server.process.terminate()
        assert server.process.wait() == 0


def test_a_client_that_leaves_does_not_disturb_the_others(start_server: Start) -> None:
    """Connections cut in the head, in the body or before the answer leave the server answering."""
    server = start_server()
    body = b'{"items":["a"]}'
    head = b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for sent in (head[:20], head + body[:3], head + body):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(sent)
    answer = httpx.post(f"{server.url}/v1/sessions/v/events", content=body)
    assert answer.json()["step"] == 1


def test_many_clients_at_once_are_each_answered(start_server: Start) -> None:
    """Threads with a session each, over real connections, see every step of theirs once and in order."""
    server = start_server()
    steps: dict[str, list[int]] = {}

    def play(name: str) -> None:
        with httpx.Client(base_url=server.url) as client:
            events = [client.post(f"/v1/sessions/{name}/events", json={"items": ["a"]}) for _ in range(30)]
        steps[name] = [event.json()["step"] for event in events]

    threads = [threading.Thread(target=play, args=(f"s{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == {f"s{number}": list(range(1, 31)) for number in range(8)}


def test_large_bodies_and_ids_get_clear_answers(start_server: Start) -> None:
    """Over a real connection a megabyte id and a body over the bound are answered, not cut off."""
    server = start_server("--max-body", "1000")
    long_id = httpx.post(f"{server.url}/v1/sessions/{'x' * 60_000}/events", json={"items": ["a"]})
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/sessions/" + b"x" * 1_000_000 + b"/events HTTP/1.1\r\nHost: x\r\n\r\n")
        longer_id = b"".join(iter(lambda: client.recv(4096), b""))
    large = httpx.post(f"{server.url}/v1/sessions/u/events", content=b" " * 2_000_000)
    assert (long_id.status_code, long_id.json()["code"]) == (422, "invalid_session_id")
    head, _, body = longer_id.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")


def test_a_port_in_use_is_one_clear_line(bundle_path: Path) -> None:
    """A port that is taken is told in one line with the flags that help; the status is 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(str(bundle_path), "--port", port)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on host 127.0.0.1 port {port}: Address already in use" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize("fault", ["missing", "changed", "host"])
def test_a_fault_at_the_start_is_one_line_and_status_2(bundle_path: Path, fault: str) -> None:
    """A bundle or an address that cannot be had is one sentence on stderr, no traceback, and status 2."""
    if fault == "changed":
        (bundle_path / "vocabulary.json").write_text("{}")
    path = bundle_path / "nowhere" if fault == "missing" else bundle_path
    done = run(str(path), "--port", "0", *(["--host", "no.such.host.invalid"] if fault == "host" else []))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("arraylstm-serve: ")
    assert done.stderr.count("\n") == 1


def test_too_many_sessions_for_the_machine_are_a_clear_fault(bundle_path: Path) -> None:
    """A bound that the machine's memory cannot meet is told with the flag to lower."""
    done = run(str(bundle_path), "--port", "0", "--max-sessions", str(10**12))
    assert done.returncode == 2
    assert "lower --max-sessions" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["b", "--port", "65536"], ["b", "--device", "tpu"], ["b", "--nope"]])
def test_a_bad_command_line_is_status_2(arguments: list[str]) -> None:
    """A flag unknown or out of range, or no bundle at all, ends with status 2."""
    assert run(*arguments).returncode == 2


def test_settings_come_from_flags_and_variables(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is taken from its flag, else from its ARRAYLSTM_ variable, else from its default."""
    served: list[cli.Settings] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: served.append(settings))
    monkeypatch.setenv("ARRAYLSTM_PORT", "1234")
    monkeypatch.setenv("ARRAYLSTM_SESSION_TTL", "2.5")
    monkeypatch.setattr(sys, "argv", ["arraylstm-serve", str(bundle_path), "--port", "4321"])
    assert cli.main() == 0
    assert (served[0].port, served[0].session_ttl, served[0].max_batch) == (4321, 2.5, 64)


def test_help_explains_every_setting() -> None:
    """--help lists each setting with its flag, its variable and its explanation."""
    text = run("--help", COLUMNS="200").stdout
    for name in cli.Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
        assert f"ARRAYLSTM_{name.upper()}" in text
    assert "Seconds without use after which a session expires" in text


def test_version_is_the_distributions() -> None:
    """--version prints the version of the installed distribution."""
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, cli.__version__)
