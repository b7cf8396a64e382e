"""The quick trials, which the ordinary suite runs: a server is killed, and a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..serve.stores.servers import served
from ..waiting import until
from .trial import Replica, Seen, load

pytestmark = pytest.mark.cpu_only("a GPU's numbers are within 1e-5; these are compared bit for bit")

Serve = Callable[..., Replica]
Conclude = Callable[..., Seen]


def test_kill_9_of_a_server_and_of_its_store(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """Two servers over one Redis: one is killed, then Redis; nothing acknowledged is lost, and nothing is silent."""
    with served("redis", "--appendonly", "yes", "--appendfsync", "always") as store:
        address = f"redis://{store.address}/0"
        servers = [serve(address) for _ in range(2)]
        urls = [server.url for server in servers]
        with load(bundle, urls, tmp_path / "history", workers=4) as running:
            running.go_on(50)
            servers[0].stop()
            store.kill()
            until(lambda: not servers[1].is_ready(), pause=0.1)
            store.start()
            servers[0] = serve(address, port=servers[0].port)
            until(servers[1].is_ready, pause=0.1)
            running.go_on(100)
    result = conclude(tmp_path / "history")
    assert result.codes()["store_unavailable"]
