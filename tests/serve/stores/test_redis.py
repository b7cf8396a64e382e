"""The store in Redis or Valkey: what stops it from starting, what it survives, and how it fails."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.base import Failed, Outcome, Store
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.record import Record, decode
from arraylstm_serve.stores.redis import links
from arraylstm_serve.stores.redis.address import parse
from arraylstm_serve.stores.redis.links import Call, SingleLink
from arraylstm_serve.stores.redis.store import RedisStore

from .conftest import DURABLE
from .records import change, first, following, step_of
from .servers import Server, served

pytestmark = pytest.mark.anyio

TIMEOUT = 1.0


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for one test, which may do with it what it likes."""
    with served(request.param, *DURABLE) as server:
        yield server


@asynccontextmanager
async def connected(url: str, *, durable: bool = True, timeout: float = TIMEOUT) -> AsyncIterator[Store]:
    """An open store."""
    store = await open_store(url, durable=durable, ttl=100, timeout=timeout)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(server: Server) -> AsyncIterator[Store]:
    """A store on the server."""
    async with connected(f"redis://{server.address}") as store:
        yield store


async def timed(work: Any) -> tuple[Any, float]:
    """Return what comes of some work, and how long it took."""
    began = time.monotonic()
    return await work, time.monotonic() - began


async def load(store: Store, key: str) -> int | None:
    """Return the step of the record under a key."""
    return step_of(key, (await store.load([key]))[key])


async def begun(store: Store, key: str = "s") -> Record:
    """Return the first record of a session, committed."""
    record = first(key)
    assert await store.commit([change(record)]) == ["applied"]
    return record


async def test_a_server_that_stands_still_fails_in_time(server: Server, store: Store) -> None:
    """While the server does not answer, calls fail within the timeout; then the same commit is made once."""
    one = await begun(store)
    two = following(one)
    server.process.send_signal(signal.SIGSTOP)
    (outcome,), commit_seconds = await timed(store.commit([change(two, one)]))
    found, load_seconds = await timed(store.load(["s"]))
    server.process.send_signal(signal.SIGCONT)
    assert isinstance(outcome, Failed)
    assert outcome.unknown
    assert "no answer within" in outcome.reason
    assert isinstance(found["s"], Failed)
    assert max(commit_seconds, load_seconds) < TIMEOUT + 0.5
    assert await store.commit([change(two, one)]) == ["applied"]
    assert await load(store, "s") == 2


async def test_a_server_that_comes_back_in_time_is_not_noticed(server: Server, store: Store) -> None:
    """A pause that is shorter than the timeout ends with the commit made."""
    one = await begun(store)
    server.process.send_signal(signal.SIGSTOP)
    asyncio.get_running_loop().call_later(0.6 * TIMEOUT, server.process.send_signal, signal.SIGCONT)
    assert await store.commit([change(following(one), one)]) == ["applied"]


async def test_what_was_acknowledged_survives_kill_9(server: Server, store: Store) -> None:
    """With appendfsync always, a killed server has every acknowledged step when it is back, and commits go on."""
    before = await begun(store)
    for round_ in range(3):
        killing = asyncio.get_running_loop().call_later(0.1, server.kill)
        while (outcome := (await store.commit([change(after := following(before), before)]))[0]) == "applied":
            before = after
        killing.cancel()
        assert isinstance(outcome, Failed), (round_, outcome)
        await asyncio.to_thread(server.start)
        assert await load(store, "s") in (before.step, after.step)
        assert await store.commit([change(after, before)]) == ["applied"]
        before = after


async def test_a_server_that_starts_again_is_found_again(server: Server, store: Store) -> None:
    """While the server is away, calls fail in time; the first one after its return works."""
    one = await begun(store)
    server.kill()
    (outcome,), seconds = await timed(store.commit([change(following(one), one)]))
    assert isinstance(outcome, Failed)
    assert "connecting to" in outcome.reason
    assert seconds < TIMEOUT + 0.5
    await asyncio.to_thread(server.start)
    assert await store.commit([change(following(one), one)]) == ["applied"]


async def test_a_lost_function_is_loaded_again(server: Server, store: Store) -> None:
    """After FLUSHALL with FUNCTION FLUSH, and after SCRIPT FLUSH, commits go on."""
    one = await begun(store)
    with server.client as client:
        client.function_flush()
        client.script_flush()
    assert await store.commit([change(following(one), one)]) == ["applied"]


async def test_a_full_server_fails_at_once(server: Server, store: Store) -> None:
    """Out of memory is a failure with the server's words; loads go on, and commits when there is memory."""
    one = await begun(store)
    with server.client as client:
        client.config_set("maxmemory", "100kb")
        (outcome,), seconds = await timed(store.commit([change(following(one), one)]))
        assert isinstance(outcome, Failed)
        assert not outcome.unknown
        assert "maxmemory" in outcome.reason
        assert seconds < TIMEOUT / 2
        assert await load(store, "s") == 1
        client.config_set("maxmemory", "0")
    assert await store.commit([change(following(one), one)]) == ["applied"]


async def test_a_replica_fails_until_it_is_the_primary_again(server: Server, store: Store) -> None:
    """A server that has become a replica is not written to; what it said is the reason."""
    one = await begun(store)
    with server.client as client:
        client.replicaof("127.0.0.1", 1)
        (outcome,), seconds = await timed(store.commit([change(following(one), one)]))
        assert isinstance(outcome, Failed)
        assert "read only replica" in outcome.reason
        assert seconds < TIMEOUT + 0.5
        client.replicaof("NO", "ONE")
    assert await store.commit([change(following(one), one)]) == ["applied"]


async def test_another_password_fails_without_telling_the_old_one(caplog: pytest.LogCaptureFixture) -> None:
    """If the password changes while the server runs, calls fail at once; no reason or log has a password."""
    with served("redis", "--requirepass", "secret") as server:
        async with connected(f"redis://:secret@{server.address}") as store:
            with server.client as client:
                client.config_set("requirepass", "other")
                client.client_kill_filter(skipme=True, _type="normal")
            (outcome,), seconds = await timed(store.commit([change(first("s"))]))
    assert isinstance(outcome, Failed)
    assert "invalid username-password pair" in outcome.reason
    assert seconds < TIMEOUT / 2
    assert "secret" not in caplog.text + repr(outcome) + store.describe()


async def test_other_values_are_left_alone(server: Server, store: Store) -> None:
    """A key that holds another program's value fails, whatever it is, and keeps its value."""
    one, two, three = await begun(store, "one"), await begun(store, "two"), await begun(store, "three")
    with server.client as client:
        names = {bytes(name).decode().rpartition(":")[2]: name for name in client.scan_iter()}
        client.delete(*names.values())
        client.set(names["one"], "x")
        client.rpush(names["two"], "x" * 200)
        client.set(names["three"], "another program's value " * 20)
        outcomes = await store.commit([change(first("one")), change(first("two")), change(following(three), three)])
        assert all(isinstance(outcome, Failed) and not outcome.unknown for outcome in outcomes), outcomes
        assert "something else than a record" in str(outcomes[0])
        assert "WRONGTYPE" in str(outcomes[1])
        assert client.get(names["one"]) == b"x"
        assert client.llen(names["two"]) == 1
    assert one.key != two.key


async def test_databases_and_prefixes_are_apart(server: Server) -> None:
    """Stores with different databases or prefixes do not see each other's records."""
    places = [f"redis://{server.address}{place}" for place in ("", "/1", "?prefix=a", "?prefix=b")]
    for step, place in enumerate(places):
        async with connected(place) as store:
            assert await load(store, "s") is None
            assert await store.commit([change(first("s", step))]) == ["applied"]
    for step, place in enumerate(places):
        async with connected(place) as store:
            assert await load(store, "s") == step


async def test_a_record_lives_as_long_as_asked(server: Server, store: Store) -> None:
    """A record's key has the time to live, in milliseconds."""
    await begun(store)
    with server.client as client:
        (name,) = client.scan_iter()
        assert 99_000 < client.pttl(name) <= 100_000


async def test_of_several_servers_one_wins(server: Server) -> None:
    """Two stores that count up the same session lose no step and make none twice."""

    async def count(store: Store, times: int) -> None:
        while times:
            data = (await store.load(["s"]))["s"]
            assert isinstance(data, bytes)
            record = decode("s", data)
            times -= await store.commit([change(following(record), record)]) == ["applied"]

    url = f"redis://{server.address}"
    async with connected(url, timeout=20) as one, connected(url, timeout=20) as other:
        await one.commit([change(first("s", 0))])
        await asyncio.gather(*(count(store, 15) for store in (one, other, one, other)))
        assert await load(other, "s") == 60


class Wire:
    """Passes bytes on to a server. It can lose the answer to a commit."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.lose = 0
        """How many of the next answers to commits to lose, with their connections."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        """Listen, and return the address."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        while asked := await reader.read(1 << 20):
            far_writer.write(asked)
            answer = await far_reader.read(1 << 20)
            if b"FCALL" in asked and self.lose:
                self.lose -= 1
                break
            writer.write(answer)
        writer.close()
        far_writer.close()


async def test_a_lost_answer_makes_no_change_twice_or_stale(server: Server) -> None:
    """A commit whose answer is lost is sent again and meets its own write: it is applied, and was made once."""
    wire = Wire(server.port)
    async with wire.opened() as address, connected(f"redis://{address}") as store:
        before = first("s")
        for lost in (1, 2):
            wire.lose = lost
            assert await store.commit([change(before)]) == ["applied"]
        for _ in range(5):
            after = following(before)
            wire.lose = 1
            assert await store.commit([change(after, before)]) == ["applied"]
            before = after
        assert await load(store, "s") == 6


class Script:
    """A link whose servers answer as written."""

    def __init__(self, *rounds: Sequence[Any]) -> None:
        self.rounds = list(rounds)
        self.refreshed = 0
        self.sent: list[str] = []

    async def run(self, calls: Sequence[Call], seconds: float) -> list[Any]:
        """Return what the next round says."""
        answers = list(self.rounds.pop(0))
        assert len(answers) == len(calls)
        return answers

    async def everywhere(self, *command: str) -> dict[str, Any]:
        """Remember the command."""
        self.sent.append(command[0])
        return {}

    async def refresh(self) -> None:
        """Count."""
        self.refreshed += 1

    async def close(self) -> None:
        """Do nothing."""


LOADING = exceptions.BusyLoadingError("Redis is loading the dataset in memory")
BROKEN = exceptions.ConnectionError("Connection closed by server.")
MISCONF = exceptions.ResponseError("MISCONF Errors writing to the AOF file")
FULL = exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
MISSING = exceptions.ResponseError("Function not found")


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([[LOADING], [LOADING], [[1]]], "applied"),
        ([[exceptions.ClusterDownError("CLUSTERDOWN")], [[1]]], "applied"),
        ([[exceptions.TryAgainError("TRYAGAIN")], [[0]]], "stale"),
        ([[exceptions.ResponseError("BUSY Redis is busy running a script.")], [[1]]], "applied"),
        ([[MISSING], [[1]]], "applied"),
        ([[BROKEN], [[0]]], "stale"),
        ([[FULL]], Failed(str(FULL))),
        ([[BROKEN], [FULL]], Failed(str(FULL), unknown=True)),
        ([[exceptions.AuthenticationError("invalid password secret")]], Failed("invalid password ***")),
        ([[MISCONF]], Failed(str(MISCONF))),
        ([[[b"WRONGTYPE Operation"]]], Failed("WRONGTYPE Operation")),
    ],
)
async def test_what_passes_is_waited_for_and_the_rest_is_not(rounds: list[Any], expected: Outcome) -> None:
    """Errors that may pass are tried again; others fail at once, and say if an earlier attempt may have worked."""
    link = Script(*rounds)
    store = RedisStore(parse("redis://:secret@h"), link, ttl=1, timeout=5, description="")
    assert await store.commit([change(first("s"))]) == [expected]
    assert not link.rounds
    assert link.sent == ["FUNCTION LOAD"] * (rounds[0] == [MISSING])


async def test_only_what_failed_is_sent_again() -> None:
    """Of a batch in several buckets, only the calls without an outcome are repeated, and outcomes stay in order."""
    changes = [change(first(f"s{place}")) for place in range(3)]
    link = Script([[1], BROKEN, [0]], [[1]])
    store = RedisStore(parse("redis+cluster://h"), link, ttl=1, timeout=5, description="")
    assert await store.commit(changes) == ["applied", "applied", "stale"]


async def test_a_single_server_gets_one_call_for_a_batch() -> None:
    """Outside a cluster a batch is one call, however many buckets it touches, so that the server syncs once."""
    link = Script([[1] * 40])  # the results of one call
    store = RedisStore(parse("redis://h"), link, ttl=1, timeout=5, description="")
    assert await store.commit([change(first(f"s{place}")) for place in range(40)]) == ["applied"] * 40


async def test_a_server_that_reads_its_data_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is still loading at the start is asked again until it is done, or the time is over."""
    answers = [LOADING, LOADING]

    class Loading(SingleLink):
        async def everywhere(self, *command: str) -> dict[str, Any]:
            if answers:
                raise answers.pop()
            return await super().everywhere(*command)

    monkeypatch.setattr(links, "SingleLink", Loading)
    async with connected(f"redis://{server.address}") as store:
        await begun(store)
    answers += [LOADING] * 1000
    assert "it does not answer" in await refusal(f"redis://{server.address}")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused(server: Server, policy: str) -> None:
    """A policy that evicts sessions stops the start where answers wait for commits, and is warned of elsewhere."""
    with server.client as client:
        client.config_set("maxmemory-policy", policy)
    with pytest.raises(StartupError, match=rf"may evict sessions \(maxmemory-policy {policy}\); set it to noeviction"):
        await open_store(f"redis://{server.address}", durable=True, ttl=1)
    async with connected(f"redis://{server.address}", durable=False) as store:
        assert "may evict sessions" in store.warnings[0]


@pytest.mark.parametrize(
    ("settings", "durable", "warning"),
    [
        ({"appendonly": "no"}, True, "loses steps when it is killed (appendonly no); set appendonly to yes."),
        ({"appendonly": "no"}, False, "loses steps when it is killed (appendonly no); set appendonly to yes."),
        ({"appendfsync": "everysec"}, True, "may lose the last second or two of steps"),
        ({"appendfsync": "no"}, True, "may lose unwritten steps"),
        ({"appendfsync": "everysec"}, False, None),
        ({}, True, None),
    ],
)
async def test_weak_persistence_is_warned_of(
    server: Server, settings: dict[str, str], durable: bool, warning: str | None
) -> None:
    """What a crash of the server or its machine may lose is a warning, with the setting that loses nothing."""
    with server.client as client:
        for name, value in settings.items():
            client.config_set(name, value)
    async with connected(f"redis://{server.address}", durable=durable) as store:
        assert len(store.warnings) == bool(warning)
        assert (warning or "") in "".join(store.warnings)
        assert all(f"{name} {value}" in store.describe() for name, value in settings.items())


async def refusal(url: str, timeout: float = 0.4) -> str:
    """Return why a server cannot be used."""
    with pytest.raises(StartupError) as caught:
        await open_store(url, durable=True, ttl=1, timeout=timeout)
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_users_need_rights(server: Server) -> None:
    """A wrong password, an unknown user and a missing right are named; rights as documented are enough."""
    rights = {
        "weak": ["+info", "+config"],
        "strong": ["+fcall", "+mget", "+info", "+function|load", "+getrange", "+set", "+del"],
    }
    rights["full"] = [*rights["strong"], "+config|get"]
    with server.client as client:
        for user, own in rights.items():
            client.execute_command("ACL", "SETUSER", user, "on", ">secret", "~*", *own)
    assert "refuses the user or the password" in await refusal(f"redis://weak:secrets@{server.address}")
    assert "refuses the user or the password" in await refusal(f"redis://nobody:secret@{server.address}")
    assert "does not let this user do what is needed (+fcall" in await refusal(f"redis://weak:secret@{server.address}")
    async with connected(f"redis://strong:secret@{server.address}") as store:
        assert "does not tell its settings" in store.warnings[0]
        one = await begun(store)
        assert await store.commit([change(following(one), one)]) == ["applied"]
        assert await load(store, "s") == 2
    async with connected(f"redis://full:secret@{server.address}") as store:
        assert store.warnings == []


async def test_the_wrong_server_is_refused(server: Server) -> None:
    """Nobody there, a server that says nothing, one that is no cluster, a replica: each has its words."""
    assert "cannot be reached: Error 111" in await refusal("redis://127.0.0.1:1")
    assert "cannot be reached" in await refusal("redis+cluster://127.0.0.1:1")
    assert "cannot be reached" in await refusal("redis+sentinel://127.0.0.1:1/main")
    assert "is not a cluster: leave +cluster out" in await refusal(f"redis+cluster://{server.address}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words, seconds = await timed(refusal(f"redis://127.0.0.1:{silent.getsockname()[1]}"))
    assert "cannot be reached: " in words
    assert seconds < 3
    with server.client as client:
        client.replicaof("127.0.0.1", 1)
    assert "is a replica: name the primary" in await refusal(f"redis://{server.address}")


async def test_a_server_that_needs_a_password_says_so() -> None:
    """Without the password that the server wants, the start fails and says what it wants."""
    with served("redis", "--requirepass", "secret") as server:
        assert "refuses the user or the password" in await refusal(f"redis://{server.address}")


async def test_connections_can_be_encrypted(tmp_path: Path) -> None:
    """With TLS the server's certificate is checked: against the given authority it is right, else refused."""
    openssl = shutil.which("openssl") or pytest.skip("openssl, which makes the certificate, is not installed")
    make = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    files = "-keyout key.pem -out cert.pem -addext subjectAltName=IP:127.0.0.1"
    await asyncio.to_thread(
        subprocess.run, [*make.split(), *files.split()], cwd=tmp_path, check=True, capture_output=True
    )
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with served("redis") as server:
        with server.client as client:
            client.config_set("tls-auth-clients", "no")
            client.execute_command("CONFIG", "SET", "tls-cert-file", str(certificate), "tls-key-file", str(key))
            client.config_set("port", 0)
            client.config_set("tls-port", server.port)
        async with connected(f"rediss://{server.address}?ssl_ca_certs={certificate}", timeout=5) as store:
            assert await load(store, "s") is None
        assert "certificate verify failed" in await refusal(f"rediss://{server.address}", timeout=5)
        assert "cannot be reached" in await refusal(f"redis://{server.address}")
