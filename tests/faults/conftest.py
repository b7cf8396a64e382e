"""Fixtures: a bundle, servers that are killed after the test, and a line of each trial in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..serve.bundles import write_bundle
from .trial import Replica, Seen, seen

LINES: list[str] = []


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle."""
    return write_bundle(tmp_path_factory.mktemp("faults") / "bundle")


@pytest.fixture
def serve(bundle: Path) -> Iterator[Callable[..., Replica]]:
    """Starts servers over a store; they are killed after the test."""
    started: list[Replica] = []

    def start(store: str, *flags: str, **options: Any) -> Replica:
        started.append(Replica(bundle, "--sessions", store, *flags, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def conclude(request: pytest.FixtureRequest, bundle: Path) -> Callable[..., Seen]:
    """Ends a trial: requires that what its clients have seen is right, and keeps a line for the report at the end.

    It takes the history, whether calls may have got no answer (`silent`), and the options of `seen`.
    """

    def end(history: Path, *, silent: bool = False, **options: bool) -> Seen:
        result = seen(bundle, history, **options)
        LINES.append(f"{request.node.name}: {result}")
        result.require_right(silent=silent)
        return result

    return end


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each trial has seen."""
    for line in LINES:
        terminalreporter.write_line(line)
