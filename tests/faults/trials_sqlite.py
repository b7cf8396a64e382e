"""SQLite's disk fails, and the server is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..waiting import until
from .disks import disk, small_disk
from .trial import PATIENCE, Onlooker, Replica, Seen, load

Serve = Callable[..., Replica]
Conclude = Callable[..., Seen]

KILLS = 3
UNSAVED = 4
"""The --max-unsaved of a server that is killed; the load plays some 30 sessions."""


def test_kill_9_of_the_server(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """Nothing acknowledged is lost, three times in a row."""
    killed(bundle, serve, conclude, tmp_path)


def test_kill_9_of_the_server_with_ack_memory(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """Each time the newest steps of at most `--max-unsaved` sessions are lost, fewer than are played."""
    result = killed(bundle, serve, conclude, tmp_path, "--ack", "memory", "--max-unsaved", str(UNSAVED))
    assert len(result.sessions) > 2 * UNSAVED
    assert 0 < result.lost.told + result.lost.untold <= KILLS * UNSAVED


def killed(bundle: Path, serve: Serve, conclude: Conclude, folder: Path, *flags: str) -> Seen:
    """Kill a server under load, some times; return what the clients have seen."""
    store, history = f"sqlite:{folder / 'sessions.db'}", folder / "history"
    server = serve(store, *flags)
    with load(bundle, [server.url], history) as running:
        for _ in range(KILLS):
            running.go_on()
            server.stop()
            server = serve(store, *flags, port=server.port)
        running.go_on()
    return conclude(history, may_rewind=bool(flags), started_anew=bool(flags))


def test_a_full_disk(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """While the disk is full, events are 503, looks go on and it is not ready; with room it goes on by itself."""
    with small_disk(tmp_path / "disk") as place:
        server = serve(f"sqlite:{place.path / 'sessions.db'}")
        onlooker = Onlooker(server)
        with load(bundle, [server.url], tmp_path / "history") as running:
            for _ in range(2):
                running.go_on()
                place.fill()
                until(lambda: not server.is_ready(), pause=0.1, patience=PATIENCE)
                time.sleep(3)
                onlooker.require_answers()
                assert not server.is_ready()
                place.free()
                until(server.is_ready, pause=0.1, patience=PATIENCE)
            running.go_on()
        conclude(tmp_path / "history")
        server.stop()


def test_a_disk_that_becomes_read_only(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """Events are 503 and looks go on; once the disk is mounted again, a new server has all that was acknowledged."""
    with disk(tmp_path) as place:
        store = f"sqlite:{place.path / 'sessions.db'}"
        server = serve(store)
        onlooker = Onlooker(server)
        with load(bundle, [server.url], tmp_path / "history") as running:
            running.go_on()
            place.become_read_only()
            until(lambda: not server.is_ready(), pause=0.1, patience=PATIENCE)
            running.go_on(30)
            onlooker.require_answers()
            assert not server.is_ready()
            server.stop()
            place.mount_again()
            server = serve(store, port=server.port)
            running.go_on()
        conclude(tmp_path / "history")
        server.stop()


def test_a_disk_that_stands_still(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """Requests are 503 in time, the server is not ready, and it goes on by itself."""
    with disk(tmp_path) as place:
        server = serve(f"sqlite:{place.path / 'sessions.db'}")
        with load(bundle, [server.url], tmp_path / "history") as running:
            running.go_on()
            place.freeze()
            try:
                until(lambda: not server.is_ready(), pause=0.1, patience=PATIENCE)
                time.sleep(8)
                assert not server.is_ready()
            finally:
                place.thaw()
            until(server.is_ready, pause=0.1, patience=PATIENCE)
            running.go_on()
        conclude(tmp_path / "history")
        server.stop()


def test_the_machine_loses_power(bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path) -> None:
    """What has not reached the disk is gone: with --ack store that is nothing that was acknowledged."""
    lose_power(bundle, serve, conclude, tmp_path)


def test_the_machine_loses_power_with_ack_memory(
    bundle: Path, serve: Serve, conclude: Conclude, tmp_path: Path
) -> None:
    """The last steps may be lost, the file stays whole, and nothing else is wrong."""
    lose_power(bundle, serve, conclude, tmp_path, "--ack", "memory")


def lose_power(bundle: Path, serve: Serve, conclude: Conclude, folder: Path, *flags: str) -> None:
    """Cut the power of the disk under load, three times."""
    with disk(folder) as place:
        store = f"sqlite:{place.path / 'sessions.db'}"
        server = serve(store, *flags)
        with load(bundle, [server.url], folder / "history") as running:
            for _ in range(3):
                running.go_on()
                place.lose_power()
                server.stop()
                place.mount_again()
                server = serve(store, *flags, port=server.port)
            running.go_on()
        conclude(folder / "history", may_rewind=bool(flags), started_anew=bool(flags))
        server.stop()
