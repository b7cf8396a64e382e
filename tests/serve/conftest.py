"""Fixtures: a bundle that a test may damage, the application over it, and a real server process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..servers import ServerProcess
from .bundles import write_bundle
from .commands import refusal as refusal
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


@pytest.fixture
def start_server(bundle_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers over the bundle; they are stopped after the test."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, **options: Any) -> ServerProcess:
        servers.append(ServerProcess(bundle_path, *arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with the default settings for a module's tests, which do not stop it; each has sessions of its own."""
    process = ServerProcess(write_bundle(tmp_path_factory.mktemp("shared") / "bundle"))
    yield process
    process.stop()


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str, int], Path]:
    """A Python interpreter in a shell that allows so many open files, by `ulimit -Sn` or `ulimit -n`."""

    def write(flag: str, files: int) -> Path:
        program = tmp_path / f"python{flag}{files}"
        program.write_text(f'#!/bin/sh\nulimit {flag} {files}\nexec "{sys.executable}" "$@"\n')
        program.chmod(0o755)
        return program

    return write
