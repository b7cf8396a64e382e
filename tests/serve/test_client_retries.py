"""What the clients do when answers are lost, late or refused for now: every event applies exactly once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from arraylstm_serve.client import (
    ClientError,
    RefusedError,
    Retries,
    SessionGoneError,
    StepConflictError,
    UnreachableError,
)
from arraylstm_serve.client.errors import refusal, seconds

from ..servers import ServerProcess, Start
from .bundles import LABELS
from .clients import Connect, check, event, fresh
from .clients import connect as connect
from .flaky import Fault, FlakyProxy

pytestmark = pytest.mark.anyio

BUSY = Fault(
    status=503, headers={"Retry-After": "0"}, body=b'{"type":"","title":"","status":503,"detail":"","code":"x"}'
)


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FlakyProxy]:
    """A proxy before the module's server."""
    with FlakyProxy(server.port) as proxy:
        yield proxy


async def test_whatever_is_lost_is_applied_once(proxy: FlakyProxy, connect: Connect) -> None:
    """Lost and late answers, cut connections and refusals for now leave the steps and answers of the reference."""
    faults = [
        [Fault(lose=True)],
        [Fault(lose=True)] * 3,
        [Fault(hold=True)],
        [BUSY, Fault(lose=True), Fault(status=429), Fault(lose=True)],
        [Fault(status=502, body=b"<html>bad gateway"), Fault(status=504)],
        [],
    ]
    history: list[str | int] = []
    session_id = fresh()
    async with connect(proxy.url, timeout=1.0) as client:
        session = client.session(session_id)
        for number, items in enumerate([["a"], ["b", 5], ["c"], ["5", "e"], ["d"], ["a"]]):
            proxy.faults.extend(faults[number])
            history += items
            check(await session.send(items), history, len(items))
        assert (await session.info()).recent == history
    keys = [key for method, _, key in proxy.requests if method == "POST"]
    tries = [len(some) + 1 for some in faults]
    assert keys == [key for index, number in enumerate(tries) for key in [keys[sum(tries[:index])]] * number]
    assert len(set(keys)) == len(faults)


async def test_an_end_and_a_bulk_request_apply_once(proxy: FlakyProxy, connect: Connect) -> None:
    """An ending that is tried again gets its answer, and every event of a bulk request its own, refusals too."""
    s, t = fresh(), fresh()
    async with connect(proxy.url) as client:
        proxy.faults.append(Fault(lose=True))
        check(await client.session(s).send(["a", "b"], end=True), ["a", "b"], 2)
        proxy.faults += [Fault(lose=True), BUSY, Fault(lose=True)]
        events = [event(s, item) for item in ("a", "b", "c")] + [event(t, "nope"), event(t, "e")]
        *answers, refused, last = await client.send_many(events)
        for number, answer in enumerate(answers, 1):
            check(answer, ["a", "b", "c"][:number], 1)
        assert refused.code == "unknown_item"
        check(last, ["e"], 1)


async def test_sixteen_events_of_one_session_apply_once(proxy: FlakyProxy, connect: Connect) -> None:
    """As many events as a session remembers keys may be sent in one request that has to be tried again."""
    history = [LABELS[number % len(LABELS)] for number in range(16)]
    s = fresh()
    async with connect(proxy.url) as client:
        proxy.faults.append(Fault(lose=True))
        answers = await client.send_many([event(s, item) for item in history])
    assert [answer.step for answer in answers] == list(range(1, 17))
    check(answers[-1], history, 1)


async def test_a_lost_state_does_not_roll_back_another_writer(
    proxy: FlakyProxy, server: ServerProcess, connect: Connect
) -> None:
    """A state whose answers are lost is put once: what others send before it is tried again stays."""
    s, t = fresh(), fresh()
    async with connect(proxy.url) as client:
        await client.session(s).send(["a"])
        proxy.faults.append(Fault(lose=True))
        state = await client.session(s).export_state()
        proxy.faults += [Fault(lose=True, applied=lambda: send(server, t, "b")), BUSY, Fault(lose=True)]
        moved = client.session(t)
        assert (await moved.import_state(state)).step == moved.step == 1
        assert (await moved.info()).recent == ["a", "b"]
        moved.target.step = 2
        check(await moved.send(["c"]), ["a", "b", "c"], 1)


async def test_a_lost_removal_leaves_what_began_since(
    proxy: FlakyProxy, server: ServerProcess, connect: Connect
) -> None:
    """A session that somebody begins after its removal, before that is tried again, is not removed."""
    s = fresh()
    async with connect(proxy.url) as client:
        session = client.session(s)
        await session.send(["a", "b"])
        proxy.faults += [Fault(lose=True), Fault(lose=True, applied=lambda: send(server, s, "c")), BUSY]
        await session.remove()
        assert session.step == 0
        assert (await session.info()).recent == ["c"]


async def test_states_and_removals_carry_one_key_on_every_try(proxy: FlakyProxy, connect: Connect) -> None:
    """Each call has a random key of its own or the caller's, and an error tells it for a later try."""
    s = fresh()
    async with connect(proxy.url) as client:
        session = client.session(s)
        await session.send(["a"])
        state = await session.export_state()
        for method, call in (("PUT", lambda **key: session.import_state(state, **key)), ("DELETE", session.remove)):
            del proxy.requests[:]
            proxy.faults.append(Fault(lose=True))
            for given in ({}, {}, {"key": f"my {method}"}):
                await call(**given)
                await session.send(["a"])
            proxy.faults += [Fault(lose=True)] * 6
            with pytest.raises(UnreachableError) as lost:
                await call()
            await call(key=lost.value.key)
            keys = [key for made, _, key in proxy.requests if made == method]
            assert keys[:2] == keys[:1] * 2
            assert keys[4:] == [lost.value.key] * 7
            assert keys[3] == f"my {method}"
            assert len({*keys, None}) == 5


async def test_a_retry_that_comes_too_late_is_told(proxy: FlakyProxy, server: ServerProcess, connect: Connect) -> None:
    """Where the server has forgotten the key, a retry from a known step is a conflict and moves nothing."""
    s = fresh()

    def forget() -> None:
        for _ in range(16):
            headers = {"Idempotency-Key": fresh()}
            httpx.post(f"{server.url}/v1/sessions/{s}/events", json={"items": ["e"]}, headers=headers)

    async with connect(proxy.url) as client:
        session = client.session(s)
        await session.send(["a"])
        proxy.faults.append(Fault(lose=True, applied=forget))
        with pytest.raises(StepConflictError) as caught:
            await session.send(["b", "c"])
        assert (caught.value.step, session.step) == (19, 1)
        assert caught.value.key == proxy.requests[-1][2]
        assert (await session.info()).step == 19


async def test_a_server_that_lost_the_session_says_so(proxy: FlakyProxy, start_server: Start, connect: Connect) -> None:
    """A retry that reaches a server without the session is refused as gone; the session begins anew when told to."""
    other = start_server()
    async with connect(proxy.url) as client:
        session = client.session(fresh())
        await session.send(["a"])
        proxy.faults.append(Fault(lose=True, applied=lambda: setattr(proxy, "upstream", other.port)))
        with pytest.raises(SessionGoneError):
            await session.send(["b"])
        session.target.step = 0
        check(await session.send(["b"]), ["b"], 1)


async def test_a_server_that_is_not_there_yet_is_waited_for(server: ServerProcess, connect: Connect) -> None:
    """Refused connections are tried again until one is accepted."""
    port = free_port()
    async with connect(f"http://127.0.0.1:{port}", retries=Retries(tries=500, first=0.01, longest=0.1)) as client:
        sending = asyncio.create_task(client.session(fresh()).send(["a"]))
        await asyncio.sleep(0.3)
        with FlakyProxy(server.port, port):
            check(await sending, ["a"], 1)


async def test_tries_come_to_an_end(proxy: FlakyProxy, connect: Connect) -> None:
    """After the last try the refusal or the loss is raised, with the key under which the same applies once."""
    s = fresh()
    async with connect(proxy.url, retries=Retries(tries=3, first=0.001)) as client:
        session = client.session(s)
        proxy.faults += [BUSY] * 3
        with pytest.raises(RefusedError) as refused:
            await session.send(["a"])
        assert (refused.value.status, refused.value.retry_after) == (503, 0)
        proxy.faults += [Fault(lose=True)] * 3
        with pytest.raises(UnreachableError, match=f"POST {proxy.url}/v1/sessions/{s}/events got no answer: ") as lost:
            await session.send(["a"])
        assert isinstance(lost.value.__cause__, httpx.RemoteProtocolError)
        assert len(proxy.requests) == 6
        check(await session.send(["a"], key=lost.value.key), ["a"], 1)
        check(await session.send(["b"]), ["a", "b"], 1)


async def test_a_server_that_is_nowhere_is_unreachable(connect: Connect) -> None:
    """Where nobody listens each try fails, and the error says what was asked of whom."""
    async with connect(f"http://127.0.0.1:{free_port()}", retries=Retries(tries=2, first=0.001)) as client:
        with pytest.raises(UnreachableError, match=r"GET http://127\.0\.0\.1:\d+/v1/model got no answer: .") as caught:
            await client.model()
        with pytest.raises(UnreachableError, match="stream"):
            await client.stream().__aenter__()
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 413, 422, 500, 501])
async def test_other_refusals_are_final(proxy: FlakyProxy, connect: Connect, status: int) -> None:
    """What a further try would not change is tried once."""
    proxy.faults.append(Fault(status=status, headers={"Retry-After": "0"}))
    async with connect(proxy.url) as client:
        with pytest.raises(RefusedError) as caught:
            await client.predict(["a"])
    assert (caught.value.status, len(proxy.requests)) == (status, 1)


async def test_retry_after_is_heeded(proxy: FlakyProxy, connect: Connect) -> None:
    """The next try comes no sooner than the server asked for."""
    proxy.faults.append(Fault(status=503, headers={"Retry-After": "1"}))
    async with connect(proxy.url) as client:
        begun = time.monotonic()
        await client.predict(["a"])
    assert time.monotonic() - begun >= 1


def test_pauses_grow_at_random_within_bounds() -> None:
    """A pause is up to twice the one before, what the server asks for goes before it, and `longest` ends both."""
    retries = Retries(tries=9, first=1, longest=5)
    asked = refusal(503, {"Retry-After": "3"}, b"")
    for tried, most in ((1, 1), (2, 2), (3, 4), (4, 5), (5, 5)):
        pauses = [retries.pause(tried, UnreachableError()) for _ in range(200)]
        assert 0 <= min(pauses) <= most / 2 <= max(pauses) <= most
    assert all(3 <= retries.pause(1, asked) <= 4 for _ in range(200))
    assert all(3 <= retries.pause(5, asked) <= 5 for _ in range(200))


@pytest.mark.parametrize(
    ("tried", "error"),
    [
        (6, UnreachableError()),
        (1, refusal(503, {"Retry-After": "11"}, b"")),
        (1, refusal(500, {"Retry-After": "1"}, b"")),
        (1, ClientError()),
    ],
)
def test_no_pause_where_no_try_follows(tried: int, error: ClientError) -> None:
    """The last try, more patience than is had, and what does not pass are raised as they came."""
    with pytest.raises(ClientError) as caught:
        Retries().pause(tried, error)
    assert caught.value is error


def test_retry_after_may_be_a_date() -> None:
    """Seconds and dates of HTTP are read; what is neither asks for nothing."""
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)
    assert seconds(in_a_minute) == pytest.approx(60, abs=5)
    assert seconds("Mon, 06 Sep 1999 00:00:00 GMT") == 0
    assert [seconds(text) for text in ("7", "soon", "-1", "", None)] == [7, None, None, None, None]
    assert seconds("Mon, 06 Sep 1999 00:00:00 -0000") is None


def send(server: ServerProcess, session_id: str, item: str) -> None:
    """Another writer's event."""
    httpx.post(f"{server.url}/v1/sessions/{session_id}/events", json={"items": [item]})


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
