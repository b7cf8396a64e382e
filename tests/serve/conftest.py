"""Fixtures: a bundle that a test may damage, the application over it, and a real server process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .bundles import write_bundle
from .harness import Harness


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that the asynchronous tests run on."""
    return "asyncio"


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A fresh bundle."""
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def harness(bundle_path: Path) -> Harness:
    """The application over the bundle, with the default settings."""
    return Harness(bundle_path)


class ServerProcess:
    """A running `arraylstm-serve`."""

    def __init__(self, bundle: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "arraylstm_serve", str(bundle), "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.greeting = self._read_greeting()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", self.greeting)
        assert match, self.process.communicate()
        self.port = int(match[1])
        self.url = match[0]

    def _read_greeting(self) -> str:
        assert self.process.stdout
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "docs" in line:
                break
        return "".join(lines)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_server(bundle_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers over the bundle; they are stopped after the test."""
    servers: list[ServerProcess] = []

    def start(*arguments: str) -> ServerProcess:
        servers.append(ServerProcess(bundle_path, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
