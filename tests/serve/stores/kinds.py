"""The kinds of stores that the tests of the contract run over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from arraylstm_serve.stores.base import Store
from arraylstm_serve.stores.memory import MemoryStore
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.sqlite import SqliteStore

from .servers import Server, age
from .toy import ToyStore

TTL = 100.0


class FakeClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


@dataclass(frozen=True)
class Kind:
    """A kind of store: how its description begins, and what it does by itself."""

    described: str
    sweeps: bool = False
    backs_up: bool = False
    expires: bool = True


@dataclass(frozen=True)
class Case:
    """An open store, and how its time passes, in times to live."""

    store: Store
    kind: Kind
    pass_time: Callable[[float], Awaitable[None]]


def _moved(clock: FakeClock) -> Callable[[float], Awaitable[None]]:
    async def pass_time(lives: float) -> None:
        clock.now += TTL * lives

    return pass_time


@asynccontextmanager
async def _memory(_: Any) -> AsyncIterator[Case]:
    clock = FakeClock()
    yield Case(MemoryStore(TTL, clock), Kind("memory", sweeps=True), _moved(clock))


@asynccontextmanager
async def _toy(_: Any) -> AsyncIterator[Case]:
    yield Case(ToyStore(), Kind("toy", expires=False), _moved(FakeClock()))


@asynccontextmanager
async def _sqlite(_: Any, *, durable: bool = True) -> AsyncIterator[Case]:
    clock = FakeClock()
    with TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "sessions.db", durable=durable, ttl=TTL, clock=clock)
        yield Case(store, Kind(r"SQLite 3\.\d+", sweeps=True, backs_up=True), _moved(clock))
        await store.close()


def _aged(*servers: Server) -> Callable[[float], Awaitable[None]]:
    async def pass_time(lives: float) -> None:
        for server in servers:
            await asyncio.to_thread(age, server, TTL * lives)

    return pass_time


@asynccontextmanager
async def _remote(request: Any, name: str) -> AsyncIterator[Case]:
    server: Server = request.getfixturevalue(name)
    url = f"{name}://default:secret@{server.address}/0?prefix=tests"
    with server.client as client:
        client.flushall()
    store = await open_store(url, durable=True, ttl=TTL, timeout=20)
    yield Case(store, Kind(rf"{name.capitalize()} \d+\.\d.*, appendfsync always\) at {name}://127"), _aged(server))
    await store.close()


@asynccontextmanager
async def _cluster(request: Any) -> AsyncIterator[Case]:
    servers: list[Server] = request.getfixturevalue("nodes")
    for server in servers:
        with server.client as client:
            client.flushall()
    store = await open_store(f"redis+cluster://{servers[1].address}", durable=True, ttl=TTL, timeout=20)
    yield Case(store, Kind(r"Redis \d+\.\d.* at redis\+cluster://127"), _aged(*servers))
    await store.close()


KINDS = {
    "memory": _memory,
    "toy": _toy,
    "sqlite": _sqlite,
    "sqlite-normal": lambda request: _sqlite(request, durable=False),
    "redis": lambda request: _remote(request, "redis"),
    "valkey": lambda request: _remote(request, "valkey"),
    "redis-cluster": _cluster,
}
