"""A server's open files: as many as its connections need, whatever the shell that starts it allows at first."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from arraylstm_serve.errors import StartupError
from arraylstm_serve.server.open_files import SPARE_FILES, allow_files
from arraylstm_serve.settings import Settings

from ..servers import ServerProcess, Start
from .sockets import HEALTH, answer_to, connect

FROM_A_PROXY = ("--forwarded-allow-ips", "127.0.0.1")
"""Flags with which one address may have all connections."""


def test_connections_may_be_more_than_the_soft_limit(start_server: Start, shell: Callable[[str, int], Path]) -> None:
    """Where only the soft limit of open files is low, it is raised, and every connection up to the bound is served."""
    server = start_server("--max-connections", "150", *FROM_A_PROXY, python=shell("-Sn", 100))
    assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] == 150 + SPARE_FILES
    fill(server, 150)


def test_the_hard_limit_may_be_what_the_connections_need(
    start_server: Start, shell: Callable[[str, int], Path]
) -> None:
    """Where the hard limit is just enough, as many connections as are allowed leave files to open for other things."""
    fill(start_server("--max-connections", "40", *FROM_A_PROXY, python=shell("-n", 40 + SPARE_FILES)), 40)


def fill(server: ServerProcess, count: int) -> None:
    """Open so many connections, each of which is served, a file among what they get, and one more, which is refused."""
    with ExitStack() as clients:
        for _ in range(count):
            client = clients.enter_context(closing(connect(server)))
            assert answer_to(client, HEALTH).startswith(b"HTTP/1.1 200 OK")
        page = answer_to(client, HEALTH.replace(b"/healthz", b"/"))
        assert (page[:12], b"text/html" in page) == (b"HTTP/1.1 200", True)
        assert httpx.get(f"{server.url}/healthz").status_code == 503


def test_a_hard_limit_that_is_too_low_is_a_fault_at_the_start(
    bundle_path: Path, shell: Callable[[str, int], Path]
) -> None:
    """Where the machine does not allow as many open files, the server says on one line what to change; status 2."""
    command = [shell("-n", 200), "-m", "arraylstm_serve", bundle_path, "--port", "0", "--max-connections", "137"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    for words in ("--max-connections 137", f"needs {137 + SPARE_FILES} open files", "at most 200", "ulimit -Hn"):
        assert words in done.stderr


@pytest.mark.parametrize("error", [ValueError("current limit exceeds maximum limit"), OSError(22, "Invalid argument")])
def test_a_limit_that_cannot_be_raised_is_a_fault_at_the_start(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS says that there is no hard limit, and has one: the message says what to do."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", Mock(side_effect=error))
    with pytest.raises(StartupError, match=r"the limit of 256 cannot be raised .*; give --max-connections 192, or"):
        allow_files(Settings(max_connections=20_000))
