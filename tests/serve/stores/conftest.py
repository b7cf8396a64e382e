"""Fixtures: servers that several tests share; each test begins with an empty one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .servers import Server, cluster, served

PASSWORD = ("--requirepass", "secret")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    """A Redis that wants a password."""
    with served("redis", *PASSWORD, *DURABLE) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A Valkey that wants a password."""
    with served("valkey", *PASSWORD, *DURABLE) as server:
        yield server


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[Server]]:
    """A cluster of three."""
    with cluster("redis") as servers:
        yield servers
