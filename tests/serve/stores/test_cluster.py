"""The store in a cluster, and in a server that Sentinel names."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.base import Failed, Store
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.redis import store as redis_store

from .records import change, first, following, removal, step_of
from .servers import Server, cluster, served

pytestmark = pytest.mark.anyio

TIMEOUT = 2.0
KEYS = [f"s{place}" for place in range(60)]


@pytest.fixture
def own_nodes() -> Iterator[list[Server]]:
    """A cluster for one test, which may do with it what it likes."""
    with cluster("redis") as servers:
        yield servers


@asynccontextmanager
async def connected(url: str, timeout: float = TIMEOUT) -> AsyncIterator[Store]:
    """An open store."""
    store = await open_store(url, durable=True, ttl=100, timeout=timeout)
    try:
        yield store
    finally:
        await store.close()


def held(server: Server) -> set[str]:
    """Return the keys whose records a server holds."""
    with server.client as client:
        return {bytes(name).decode().partition(":")[2].partition("}:")[2] for name in client.scan_iter()}


async def test_a_node_that_fails_harms_its_own_sessions_only(own_nodes: list[Server]) -> None:
    """While one of three nodes stands still, or is gone, the others' records are read and written as ever."""
    async with connected(f"redis+cluster://{own_nodes[0].address},{own_nodes[1].address}") as store:
        records = {key: first(key) for key in KEYS}
        assert await store.commit([change(record) for record in records.values()]) == ["applied"] * len(KEYS)
        lost = held(own_nodes[2])
        assert 5 < len(lost) < 55
        for stop in (lambda: own_nodes[2].process.send_signal(signal.SIGSTOP), own_nodes[2].kill):
            stop()
            after = {key: following(record) for key, record in records.items()}
            began = time.monotonic()
            outcomes = await store.commit([change(after[key], records[key]) for key in KEYS])
            found = await store.load(KEYS)
            assert time.monotonic() - began < 2 * TIMEOUT + 1
            failed = {key: outcome for key, outcome in zip(KEYS, outcomes, strict=True) if isinstance(outcome, Failed)}
            assert failed.keys() == lost, failed
            assert {key for key in KEYS if isinstance(found[key], Failed)} == lost
            records |= {key: after[key] for key in KEYS if key not in lost}
            assert all(step_of(key, found[key]) == records[key].step for key in KEYS if key not in lost)
        await asyncio.to_thread(own_nodes[2].start)
        again = {key: first(key, 9) for key in lost}  # it kept nothing
        until = time.monotonic() + 20
        while set(map(str, await store.commit([change(record) for record in again.values()]))) != {"applied"}:
            assert time.monotonic() < until


@contextmanager
def moving(slot: int, source: Server, target: Server) -> Iterator[None]:
    """Move a slot from one node to another, half of its records before and half after the block."""
    with source.client as one, target.client as other:
        source_id, target_id = (bytes(client.execute_command("CLUSTER", "MYID")).decode() for client in (one, other))
        other.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        one.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        names = list(one.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000))
        for name in names[::2]:
            one.execute_command("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        yield
        for name in one.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            one.execute_command("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        for client in (other, one):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)


async def test_slots_may_move(own_nodes: list[Server]) -> None:
    """After buckets have moved to another node, their records are found there, and commits go on."""
    async with connected(f"redis+cluster://{own_nodes[0].address}") as store:
        records = [first(key) for key in KEYS]
        await store.commit([change(record) for record in records])
        with own_nodes[0].client as client:
            slots = {key_slot(bytes(name)) for name in client.scan_iter()}
        for slot in slots:
            with moving(slot, own_nodes[0], own_nodes[1]):
                pass
        assert held(own_nodes[0]) == set()
        after = [following(record) for record in records]
        changes = [change(new, old) for new, old in zip(after, records, strict=True)]
        assert await store.commit(changes) == ["applied"] * len(KEYS)
        assert {key: step_of(key, data) for key, data in (await store.load(KEYS)).items()} == dict.fromkeys(KEYS, 2)


async def test_a_bucket_that_is_moving_is_served(own_nodes: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """While half of a bucket's records are on another node, they are all read, written, begun and removed."""
    monkeypatch.setattr(redis_store, "BUCKETS", 1)
    async with connected(f"redis+cluster://{own_nodes[0].address}", timeout=4) as store:
        records = [first(key) for key in KEYS[:6]]
        await store.commit([change(record) for record in records])
        (holder,) = (node for node in own_nodes if held(node))
        target = next(node for node in own_nodes if node is not holder)
        with moving(key_slot(b"{als:0}"), holder, target):
            assert (len(held(holder)), len(held(target))) == (3, 3)
            after = [following(record) for record in records]
            changes = [change(new, old) for new, old in zip(after, records, strict=True)]
            assert await store.commit([*changes, change(first("new"))]) == ["applied"] * 7
            found = await store.load([*KEYS[:6], "new"])
            assert {key: step_of(key, data) for key, data in found.items()} == dict.fromkeys(KEYS[:6], 2) | {"new": 1}
            assert await store.commit([removal(record) for record in after]) == ["applied"] * 6
        assert list(filter(None, (await store.load(KEYS[:6])).values())) == []


async def test_the_kind_of_address_must_fit(nodes: list[Server]) -> None:
    """A cluster that is addressed as a single server is refused with the remedy."""
    with pytest.raises(StartupError, match=r"is a cluster: write \+cluster before"):
        await open_store(f"redis://{nodes[0].address}", durable=True, ttl=1, timeout=TIMEOUT)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Server, Server, Server]]:
    """A primary, its replica, and the Sentinel that watches them."""
    configuration = tmp_path / "sentinel.conf"
    with served("redis") as primary, served("redis", "--replicaof", f"127.0.0.1 {primary.port}") as replica:
        configuration.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\n"
            "sentinel failover-timeout main 2000\n"
        )
        with served("redis", sentinel=configuration) as sentinel:
            until = time.monotonic() + 20
            with sentinel.client as client:
                while not client.execute_command("SENTINEL", "REPLICAS", "main"):
                    assert time.monotonic() < until
                    time.sleep(0.05)
            yield primary, replica, sentinel


async def test_after_a_failover_sentinel_names_the_new_server(watched: tuple[Server, Server, Server]) -> None:
    """When the primary is killed, commits fail in time until Sentinel has named the replica, and go on there."""
    primary, replica, sentinel = watched
    async with connected(f"redis+sentinel://{sentinel.address}/main") as store:
        one = first("s")
        assert await store.commit([change(one)]) == ["applied"]
        with replica.client as client:
            until = time.monotonic() + 10
            while not client.dbsize():
                assert time.monotonic() < until
        primary.kill()
        two = following(one)
        until = time.monotonic() + 30
        while (await store.commit([change(two, one)])) != ["applied"]:
            assert time.monotonic() < until
        assert step_of("s", (await store.load(["s"]))["s"]) == 2
        with replica.client as client:
            assert client.role()[0] == b"master"
    with pytest.raises(StartupError, match="cannot be reached"):
        await open_store(f"redis+sentinel://{sentinel.address}/other", durable=True, ttl=1, timeout=TIMEOUT)
