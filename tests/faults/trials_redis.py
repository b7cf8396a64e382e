"""Redis and Valkey are killed, lose power, are cut off, get full, fail over; each cell of docs/stores.md's table."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from ..serve.stores.servers import Server, cluster, kept_on, served
from ..waiting import until
from .disks import disk, small_disk
from .networks import PORT, network
from .trial import PATIENCE, Replica, Seen, load

Serve = Callable[..., Replica]
Conclude = Callable[..., Seen]

PROGRAMS = ["redis", "valkey"]
PERSISTENCE = {
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
    "everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "no": ("--appendonly", "yes", "--appendfsync", "no"),
    "none": ("--appendonly", "no"),
}
DURABLE = PERSISTENCE["always"]


def both(serve: Serve, address: str) -> list[Replica]:
    """Two servers over a store."""
    return [serve(address) for _ in range(2)]


def all_ready(servers: list[Replica]) -> None:
    """Wait until all servers are ready again, each by itself."""
    until(lambda: all(server.is_ready() for server in servers), pause=0.1, patience=PATIENCE)
    assert all(server.process.poll() is None for server in servers)


def none_ready(servers: list[Replica]) -> None:
    """Wait until no server is ready."""
    until(lambda: not any(server.is_ready() for server in servers), pause=0.1, patience=PATIENCE)


@pytest.mark.parametrize("persistence", PERSISTENCE)
@pytest.mark.parametrize("name", PROGRAMS)
def test_kill_9_of_the_store(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, name: str, persistence: str
) -> None:
    """With an append-only file nothing acknowledged is lost, however it is synced; without one, the servers say so."""
    with kept_on(name, tmp_path, *PERSISTENCE[persistence]) as store:
        servers = both(serve, f"redis://{store.address}/0")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            for _ in range(2):
                running.go_on()
                store.kill()
                none_ready(servers)
                time.sleep(1)
                store.start()
                all_ready(servers)
            running.go_on()
    result = conclude(tmp_path / "history", may_rewind=persistence == "none")
    assert result.codes()["store_unavailable"]
    assert (result.lost.told > 0) == (persistence == "none")


@pytest.mark.parametrize("persistence", PERSISTENCE)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_stores_machine_loses_power(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, name: str, persistence: str
) -> None:
    """With `appendfsync always` nothing acknowledged is lost; else the last steps may be, and the servers say so.

    With `no` and without a file they surely are: what came in the last seconds has not been written. If nothing is
    lost, the power was not.
    """
    with disk(tmp_path) as place, kept_on(name, place.path, *PERSISTENCE[persistence]) as store:
        servers = both(serve, f"redis://{store.address}/0")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            for _ in range(2):
                running.go_on()
                place.lose_power()
                store.kill()
                place.mount_again()
                store.start()
                all_ready(servers)
            running.go_on()
        store.kill()
    result = conclude(tmp_path / "history", may_rewind=persistence != "always")
    assert result.lost.told > 0 or persistence in ("always", "everysec"), "the power was not lost"


@pytest.mark.parametrize("persistence", ["always", "everysec"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_stores_disk_is_full(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, name: str, persistence: str
) -> None:
    """Events are 503 and no server is ready; with room they go on. With `always` the store ends by itself."""
    with (
        small_disk(tmp_path / "disk", 48) as place,
        kept_on(name, place.path, *PERSISTENCE[persistence]) as store,
    ):
        servers = both(serve, f"redis://{store.address}/0")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            running.go_on()
            place.fill()
            none_ready(servers)
            time.sleep(3)
            assert not any(server.is_ready() for server in servers)
            place.free()
            ended = store.process.poll() is not None
            if ended:
                store.start()
            all_ready(servers)
            running.go_on()
        assert ended == (persistence == "always")
    conclude(tmp_path / "history")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_stores_disk_becomes_read_only(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, name: str
) -> None:
    """Events are 503 and no server is ready; once the disk is mounted and the store started again, they go on."""
    with disk(tmp_path) as place, kept_on(name, place.path, *PERSISTENCE["everysec"]) as store:
        servers = both(serve, f"redis://{store.address}/0")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            running.go_on()
            place.become_read_only()
            none_ready(servers)
            time.sleep(2)
            store.kill()
            place.mount_again()
            store.start()
            all_ready(servers)
            running.go_on()
        store.kill()
    conclude(tmp_path / "history", may_rewind=True)


def test_the_stores_memory_is_full(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """Under `noeviction` events are 503 and no server is ready; with room they go on."""
    with kept_on("redis", tmp_path, *DURABLE) as store:
        servers = both(serve, f"redis://{store.address}/0")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            running.go_on()
            with store.client as client:
                client.config_set("maxmemory", 1)
                none_ready(servers)
                time.sleep(2)
                assert not any(server.is_ready() for server in servers)
                client.config_set("maxmemory", 0)
            all_ready(servers)
            running.go_on()
    conclude(tmp_path / "history")


def test_the_network_to_one_server_is_cut(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """That server refuses in time and is not ready, the other goes on; once it is mended, both do."""
    with network(tmp_path, 2, *DURABLE) as place:
        servers = [serve(f"redis://{address}:{PORT}/0") for address in place.addresses]
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            for cut in (0, 1):
                running.go_on()
                place.cut(cut)
                until(lambda cut=cut: not servers[cut].is_ready(), pause=0.1, patience=PATIENCE)
                running.go_on()
                assert servers[1 - cut].is_ready()
                place.heal(cut)
                all_ready(servers)
            running.go_on()
    conclude(tmp_path / "history")


REPLICATED = ("--masteruser", "copier", "--masterauth", "copy")


def let_copy(primary: Server, *, allowed: bool) -> None:
    """Let a replica copy from a primary, or cut it off, so that the primary's further writes will be lost."""
    with primary.client as client:
        rule = "on" if allowed else "off"
        client.execute_command("ACL", "SETUSER", "copier", rule, ">copy", "+psync", "+replconf", "+ping")
        if not allowed:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")


def copies(replica: Server) -> bool:
    """Whether a replica has a link to its primary."""
    try:
        with replica.client as client:
            return bool(client.info("replication").get("master_link_status") == "up")
    except RedisError:
        return False


def test_a_sentinel_failover_loses_acknowledged_writes(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path
) -> None:
    """The replica that takes over lacks the last steps: servers that answered them say so, nothing else is wrong."""
    with ExitStack() as stack:
        primary = stack.enter_context(served("redis", *DURABLE))
        let_copy(primary, allowed=True)
        replica = stack.enter_context(
            served("redis", *DURABLE, *REPLICATED, "--replicaof", f"127.0.0.1 {primary.port}")
        )
        settings = tmp_path / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 3000\n"
            "sentinel failover-timeout main 5000\n"
        )
        sentinel = stack.enter_context(served("redis", sentinel=settings))
        until(lambda: copies(replica), pause=0.1)
        with sentinel.client as client:
            until(lambda: client.execute_command("SENTINEL", "REPLICAS", "main"), pause=0.1)
        servers = both(serve, f"redis+sentinel://{sentinel.address}/main")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            running.go_on()
            let_copy(primary, allowed=False)
            running.go_on(100)
            primary.kill()
            none_ready(servers)
            all_ready(servers)
            running.go_on()
        with replica.client as client:
            assert client.role()[0] == b"master"
    result = conclude(tmp_path / "history", may_rewind=True)
    assert result.lost.told > 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_cluster_failover_loses_acknowledged_writes(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path, name: str
) -> None:
    """So in a cluster, where the sessions of the other nodes go on meanwhile."""
    flags = (*DURABLE, *REPLICATED, "--cluster-replica-validity-factor", "0")
    with cluster(name, options=flags) as nodes, ExitStack() as stack:
        let_copy(nodes[0], allowed=True)
        node_flags = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        replica = stack.enter_context(served(name, *node_flags, *flags))
        with nodes[0].client as one, replica.client as other:
            other.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
            primary = bytes(one.execute_command("CLUSTER", "MYID")).decode()
            until(lambda: primary in bytes(other.execute_command("CLUSTER", "NODES")).decode(), pause=0.1)
            until(lambda: _replicates(replica, primary), pause=0.2)
        until(lambda: copies(replica), pause=0.1)
        servers = both(serve, f"redis+cluster://{nodes[1].address},{nodes[2].address}")
        with load(bundle, [server.url for server in servers], tmp_path / "history") as running:
            running.go_on()
            let_copy(nodes[0], allowed=False)
            running.go_on(100)
            nodes[0].kill()
            until(lambda: _is_primary(replica), pause=0.1, patience=PATIENCE)
            all_ready(servers)
            running.go_on(400)
    result = conclude(tmp_path / "history", may_rewind=True)
    assert result.lost.told > 0


def _replicates(replica: Server, primary: str) -> bool:
    try:
        with replica.client as client:
            return bool(client.execute_command("CLUSTER", "REPLICATE", primary))
    except RedisError:
        return False


def _is_primary(replica: Server) -> bool:
    with replica.client as client:
        return bool(client.role()[0] == b"master")
