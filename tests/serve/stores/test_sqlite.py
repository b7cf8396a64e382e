"""The store in an SQLite file: what stops it from starting, what it survives, and how it fails."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.base import Failed, StoreError
from arraylstm_serve.stores.record import RecordError, decode, encode
from arraylstm_serve.stores.sqlite import SqliteStore
from arraylstm_serve.stores.sqlite_file import SqliteFile

from .records import change, first, following, step_of

pytestmark = pytest.mark.anyio

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "sessions.db"


async def open_file(path: Path, *, durable: bool = True) -> SqliteStore:
    """Open a store with little patience."""
    return await SqliteStore.open(path, durable=durable, ttl=100, patience=0.05)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """An open store."""
    store = await open_file(path)
    yield store
    await store.close()


async def refusal(path: Path) -> str:
    """Return why a file cannot be opened."""
    with pytest.raises(StartupError) as caught:
        await open_file(path)
    return str(caught.value)


async def test_records_are_there_after_a_restart(path: Path) -> None:
    """What one store has committed, the next one on the file loads."""
    for step in range(3):
        store = await open_file(path, durable=bool(step % 2))
        assert {key: step_of(key, data) for key, data in (await store.load(["0", "1", "2"])).items()} == {
            str(place): place if place < step else None for place in range(3)
        }
        assert await store.commit([change(first(str(step), step))]) == ["applied"]
        await store.close()


async def test_only_the_owner_can_read_the_file(path: Path, store: SqliteStore) -> None:
    """The file, its log and backups hold what people did, so nobody else may read them."""
    await store.commit([change(first("s"))])
    await store.backup(path.with_name("copy.db"))
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "sessions.db": 0o600,
        "sessions.db-wal": 0o600,
        "copy.db": 0o600,
    }


async def test_a_second_process_is_refused(path: Path, store: SqliteStore) -> None:
    """A file that is open cannot be opened again, by another process either; the message says what to do."""
    expected = f"The session store {path} is open in another process: stop that one."
    assert (await refusal(path)).startswith(expected)
    program = (
        "import asyncio, pathlib, sys; from arraylstm_serve.stores.sqlite import SqliteStore\n"
        "asyncio.run(SqliteStore.open(pathlib.Path(sys.argv[1]), durable=True, ttl=1, patience=0.05))"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert expected in done.stderr
    assert await store.commit([change(first("s"))]) == ["applied"]


async def test_what_is_not_a_store_is_refused_and_left_alone(path: Path) -> None:
    """A text file, a few bytes and another program's database are refused, and not a byte of them changes."""
    with closing(sqlite3.connect(path.with_name("foreign.db"))) as foreign:
        foreign.execute("CREATE TABLE t (x)")
    with closing(sqlite3.connect(path.with_name("marked.db"))) as marked:
        marked.execute("PRAGMA application_id = 7")
        marked.execute("PRAGMA user_version = 1")
    path.with_name("notes.txt").write_text("Not a database.\n" * 100)
    path.with_name("short").write_text("x")
    for name, fault in {
        "foreign.db": "is another program's database",
        "marked.db": "is another program's database",
        "notes.txt": "is not an SQLite database",
        "short": "is not an SQLite database",
    }.items():
        file = path.with_name(name)
        before = file.read_bytes()
        assert fault in await refusal(file)
        assert file.read_bytes() == before


async def test_another_version_of_the_tables_is_refused(path: Path) -> None:
    """A file of a newer server is named with both versions."""
    await (await open_file(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    assert "has tables of version 2; this server reads version 1" in await refusal(path)


async def test_a_place_where_no_file_can_be_is_refused(path: Path) -> None:
    """A missing folder and a folder itself are refused with what to name instead."""
    assert "folder of the session store" in await refusal(path.parent / "missing" / "sessions.db")
    assert "is not a file" in await refusal(path.parent)
    assert "is not a file" in await refusal(Path("/dev/null"))


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder of a user for whom file modes count; root becomes nobody meanwhile."""
    with TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


async def test_what_cannot_be_written_is_refused() -> None:
    """A read-only file and a new or old file in a read-only folder are refused before anything is served."""
    with ordinary_user() as folder:
        path = folder / "sessions.db"
        await (await open_file(path)).close()
        path.chmod(0o400)
        assert f"{path} is not writable" in await refusal(path)
        path.chmod(0o600)
        folder.chmod(0o500)
        assert f"{folder} is not writable" in await refusal(path)
        assert "cannot be made: Permission denied" in await refusal(folder / "new.db")
        folder.chmod(0o700)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_fails_whole_and_passes(path: Path, store: SqliteStore) -> None:
    """Where the disk is full, no change of a batch is made; loads go on, and commits when there is room again."""
    old = first("old")
    await store.commit([change(old)])
    batch = [change(first(f"s{place}")) for place in range(200)]
    log = path.with_name(f"{path.name}-wal").stat().st_size
    with full_disk(log + 20_000):
        failed = await store.commit([*batch, change(following(old), old)])
        assert all(isinstance(outcome, Failed) and outcome.unknown for outcome in failed)
        assert "SQLITE_" in str(failed[0])
        assert (await store.load(["old", "s0"])) == {"old": encode(old), "s0": None}
    with full_disk(5000), pytest.raises(StoreError, match="cannot be written"):
        await store.backup(path.with_name("copy"))
    assert not path.with_name("copy").exists()
    assert await store.commit(batch) == ["applied"] * 200
    assert step_of("s199", (await store.load(["s199"]))["s199"]) == 1


async def test_a_full_disk_at_the_start_is_refused(path: Path) -> None:
    """Where no table can be made, the start fails with SQLite's reason; the next one works."""
    with full_disk(100):
        assert re.search(r"cannot be used: .*\(SQLITE_", await refusal(path))
    await (await open_file(path)).close()


async def test_a_damaged_file_gives_no_wrong_record(path: Path) -> None:
    """Wherever the file is damaged, each record is read as it was, or fails, or is refused by name."""
    store = await open_file(path)
    records = {f"s{place}": first(f"s{place}") for place in range(300)}
    await store.commit([change(record) for record in records.values()])
    await store.close()
    whole = path.read_bytes()
    refused = 0
    for place in range(4096, len(whole), 3000):
        path.write_bytes(whole[:place] + b"\x5a" * 100 + whole[place + 100 :])
        store = await open_file(path)
        for key, data in (await store.load([*records])).items():
            if isinstance(data, Failed):
                assert "SQLITE_CORRUPT" in data.reason
            elif data is not None and data != encode(records[key]):
                with pytest.raises(RecordError, match=f'"{key}"'):
                    decode(key, data)
                refused += 1
        await store.close()
    assert refused > 10


COMMITTER = """
import asyncio, itertools, pathlib, sys
from arraylstm_serve.stores.sqlite import SqliteStore
from tests.serve.stores.records import change, first, following

async def main(path):
    store = await SqliteStore.open(pathlib.Path(path), durable=True, ttl=1000)
    async def session(key):
        before = None
        for step in itertools.count(1):
            after = following(before) if before else first(key)
            assert await store.commit([change(after, before)]) == ["applied"]
            print(key, after.step, flush=True)
            before = after
    await asyncio.gather(*(session(f"s{place}") for place in range(8)))

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    """After kill -9 amid commits, each session stands at its last acknowledged step, or at the one after it."""
    acknowledged: dict[str, int] = {}
    for _ in range(3):
        path.unlink(missing_ok=True)
        path.with_name("sessions.db-wal").unlink(missing_ok=True)
        acknowledged.clear()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])}
        with subprocess.Popen(
            [sys.executable, "-c", COMMITTER, path], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if not line.endswith("\n"):
                    break  # kill -9 has cut it off
                key, step = line.split()
                acknowledged[key] = int(step)
                if step == "20":
                    process.send_signal(signal.SIGKILL)
        assert len(acknowledged) == 8
        store = await open_file(path)
        for key, data in (await store.load([*acknowledged])).items():
            assert step_of(key, data) in (acknowledged[key], acknowledged[key] + 1)
        await store.close()


async def test_a_backup_is_whole_and_commits_go_on_meanwhile(path: Path, store: SqliteStore) -> None:
    """A backup made amid commits is a store with everything from before it, and commits do not wait for it."""
    pad = b"x" * 50_000
    records = [first(f"s{place}") for place in range(400)]
    await store.commit([change(record)._replace(record=encode(record) + pad) for record in records])
    between: list[bool] = []
    copy = path.with_name("copy.db")

    async def go_on() -> None:
        before = first("running")
        await store.commit([change(before)])
        while not backup.done():
            after = following(before)
            assert await store.commit([change(after, before)]) == ["applied"]
            between.append(not backup.done())
            before = after

    backup = asyncio.ensure_future(store.backup(copy))
    await go_on()
    await backup
    assert sum(between) > 5
    await store.close()
    again = await open_file(copy)
    found = await again.load([record.key for record in records])
    assert found == {record.key: encode(record) + pad for record in records}
    assert (await again.load(["running"]))["running"] is not None
    await again.close()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_backup_never_replaces_a_file(path: Path, store: SqliteStore) -> None:
    """An existing file, the store itself and a missing folder are refused as a backup's place; no part of one stays."""
    await store.commit([change(first("s"))])
    path.with_name("there").write_text("mine")
    for place, fault in {"there": "is there already", path.name: "is there already", "no/such": "No such file"}.items():
        with pytest.raises(StoreError, match=fault):
            await store.backup(path.parent / place)
    assert path.with_name("there").read_text() == "mine"
    assert {file.name for file in path.parent.iterdir()} == {"sessions.db", "sessions.db-wal", "there"}


async def test_a_backup_removes_nothing_that_it_has_not_made(path: Path, store: SqliteStore) -> None:
    """Somebody else's file beside the backup, a broken link and the store's own files stay as they are."""
    await store.commit([change(first("s"))])
    path.with_name("copy.part").write_text("mine")
    path.with_name("link").symlink_to("nowhere")
    own = [f"{path.name}-{end}" for end in ("wal", "shm", "journal")]
    for place in ("copy", "link", "n" * 300, "nul\0", *own):
        with pytest.raises(StoreError, match="is there already|too long|null byte|SQLite gives the name"):
            await store.backup(path.parent / place)
    assert path.with_name("copy.part").read_text() == "mine"
    assert {file.name for file in path.parent.iterdir()} == {*own[:1], path.name, "copy.part", "link"}


def test_a_file_that_comes_during_a_backup_stays(path: Path) -> None:
    """Somebody else's file under the backup's name is kept, also if it was not there when the backup began."""
    file = SqliteFile(path, durable=True, ttl=100, clock=lambda: 1e9, patience=1)
    target = path.with_name("copy")

    def come() -> None:
        target.write_text("mine")

    with pytest.raises(StoreError, match="File exists"):
        file.backup(target, between=come)
    file.close()
    assert target.read_text() == "mine"
    assert {one.name for one in path.parent.iterdir()} == {path.name, "copy"}


async def test_a_store_is_no_part_of_a_backup(tmp_path: Path) -> None:
    """A store called NAME.part outlives a backup to NAME, which is refused."""
    path = tmp_path / "copy.part"
    store = await open_file(path)
    await store.commit([change(first("s"))])
    with pytest.raises(StoreError, match="copy.part is there already"):
        await store.backup(tmp_path / "copy")
    assert path.exists()
    await store.close()
    again = await open_file(path)
    assert (await again.load(["s"]))["s"] is not None
    await again.close()


@asynccontextmanager
async def busy(store: SqliteStore) -> AsyncIterator[list[str]]:
    """Keep the store's thread busy, so that what is asked meanwhile waits; the list gets the SQL that it runs then."""
    statements: list[str] = []
    started, ready = threading.Event(), threading.Event()

    def wait(file: SqliteFile) -> None:
        file._connection.set_trace_callback(statements.append)
        started.set()
        ready.wait(10)

    waiting = asyncio.ensure_future(store._worker.ask("call", wait))
    await asyncio.to_thread(started.wait)
    yield statements
    ready.set()
    await waiting


async def test_waiting_commits_share_a_transaction(store: SqliteStore) -> None:
    """Batches that come while one is being written are committed together, and each gets its own outcomes."""
    await store.commit([change(first("s"))])
    async with busy(store) as statements:
        commits = [asyncio.ensure_future(store.commit([change(first(f"s{place}"))])) for place in range(50)]
        commits.append(asyncio.ensure_future(store.commit([change(first("s"))])))
        await asyncio.sleep(0)
    assert await asyncio.gather(*commits) == [["applied"]] * 50 + [["stale"]]
    assert statements.count("COMMIT") == 1


async def test_the_loop_goes_on_while_the_disk_is_slow(store: SqliteStore) -> None:
    """While a commit waits for its thread, the event loop does other things."""
    async with busy(store):
        commit = asyncio.ensure_future(store.commit([change(first("s"))]))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not commit.done()
    assert await commit == ["applied"]


async def test_what_was_asked_before_the_end_is_finished(path: Path, store: SqliteStore) -> None:
    """Commits that were sent before the store is closed are made."""
    commits = [asyncio.ensure_future(store.commit([change(first(f"s{place}"))])) for place in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*commits) == [["applied"]] * 10
    assert not path.with_name("sessions.db-wal").exists()


async def test_a_cancelled_caller_stops_nobody_else(store: SqliteStore) -> None:
    """Who no longer waits for an outcome gets none; the others get theirs."""
    gone = asyncio.ensure_future(store.commit([change(first("gone"))]))
    other = asyncio.ensure_future(store.commit([change(first("other"))]))
    await asyncio.sleep(0)
    gone.cancel()
    assert await other == ["applied"]
    with pytest.raises(asyncio.CancelledError):
        await gone


@pytest.mark.parametrize("durable", [True, False])
async def test_the_description_has_the_version_and_the_promise(path: Path, durable: bool) -> None:
    """The library's version and `synchronous` are in the description."""
    store = await open_file(path, durable=durable)
    synchronous = await store._worker.ask("call", lambda file: file._pragma("synchronous"))
    await store.close()
    word, number = ("FULL", 2) if durable else ("NORMAL", 1)
    assert store.describe() == f"SQLite {sqlite3.sqlite_version}, {path}, synchronous={word}"
    assert synchronous == number


async def test_a_disk_that_stands_still_fails_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls fail within the timeout, further ones at once, and none waits longer; then the store goes on by itself."""
    store = await SqliteStore.open(tmp_path / "sessions.db", durable=True, ttl=100, timeout=0.3)
    one = first("s")
    assert await store.commit([change(one)]) == ["applied"]
    disk, commit = threading.Event(), SqliteFile.commit

    def slow(self: SqliteFile, batches: Any) -> Any:
        disk.wait()
        return commit(self, batches)

    monkeypatch.setattr(SqliteFile, "commit", slow)
    two = following(one)
    assert await store.commit([change(two, one)]) == [
        Failed("the disk has not answered within 0.3 seconds", unknown=True)
    ]
    began = time.monotonic()
    trying = asyncio.create_task(store.load(["s"]))
    await asyncio.sleep(0)
    outcomes = [await store.commit([change(first(f"n{place}"))]) for place in range(100)]
    assert {outcome.unknown for (outcome,) in outcomes if isinstance(outcome, Failed)} == {False}
    assert isinstance((await trying)["s"], Failed)
    assert time.monotonic() - began < 20
    disk.set()
    while isinstance((await store.load(["s"]))["s"], Failed):
        await asyncio.sleep(0.01)
    assert await store.commit([change(two, one)]) == ["applied"]
    assert set((await store.load([f"n{place}" for place in range(100)])).values()) == {None}
    await store.close()


async def test_time_that_is_set_ends_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's clock that jumps forward or back moves no session's end."""
    store = await SqliteStore.open(tmp_path / "sessions.db", durable=True, ttl=100)
    one = first("s")
    await store.commit([change(one)])
    real = time.time
    for jump in (10_000, -10_000):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        two = following(one)
        assert await store.commit([change(two, one)]) == ["applied"]
        assert await store.sweep() == 0
        assert step_of("s", (await store.load(["s"]))["s"]) == two.step
        one = two
    await store.close()


async def test_a_record_that_was_cut_off_harms_no_other(path: Path) -> None:
    """Its own changes are stale, those of other sessions in the same transaction are made, then and later."""
    store = await open_file(path)
    cut, fine = first("cut"), first("fine")
    await store.commit([change(cut)])
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET record = x'414c53017801'")
        connection.commit()
    store = await open_file(path)
    assert await store.commit([change(following(cut), cut), change(fine)]) == ["stale", "applied"]
    assert await store.commit([change(following(fine), fine)]) == ["applied"]
    await store.close()
