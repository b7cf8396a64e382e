"""The clients' streams: pipelined, in order, and whole again after a lost connection."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from arraylstm_serve.api.schemas import KEYS_REMEMBERED, SessionAnswer, encode
from arraylstm_serve.client import (
    AnswerError,
    AsyncClient,
    RefusedError,
    Retries,
    StepConflictError,
)
from arraylstm_serve.client.pipeline import WINDOW, Pipeline

from ..servers import ServerProcess, Start
from .bundles import LABELS
from .clients import QUICK, Connect, check, event, fresh
from .clients import connect as connect
from .flaky import Fault, FlakyProxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FlakyProxy]:
    """A proxy before the module's server."""
    with FlakyProxy(server.port) as proxy:
        yield proxy


def play(number: int) -> list[str | int]:
    """The items of a session."""
    return [LABELS[place * place % len(LABELS)] for place in range(number)]


async def test_results_come_in_the_order_of_the_events(server: ServerProcess, connect: Connect) -> None:
    """Answers and refusals of many sessions come in their order, none waited for before the next event is sent."""
    s, t = fresh(), fresh()
    async with connect(server.url).stream() as stream:
        for sent in (event(s, "a"), event(t, "b", "c"), event(s, "nope"), event(s, 5), event(t, "a", expected_step=7)):
            await stream.send(sent)
        assert [waiting.session_id for waiting in stream.unanswered] == [s, t, s, s, t]
        first, second, unknown, third, conflict = [result async for result in stream]
        check(first, ["a"], 1)
        check(second, ["b", "c"], 2)
        check(third, ["a", 5], 1)
        assert isinstance(unknown, RefusedError)
        assert (unknown.code, len(unknown.key or "")) == ("unknown_item", 32)
        assert isinstance(conflict, StepConflictError)
        assert conflict.step == 2
        await stream.send(event(s, "b", end=True))
        check(await stream.receive(), ["a", 5, "b"], 1)


async def test_nothing_sent_is_nothing_to_receive(server: ServerProcess, connect: Connect) -> None:
    """Waiting for a result that cannot come is a mistake, told at once."""
    async with connect(server.url).stream() as stream:
        with pytest.raises(LookupError):
            await stream.receive()
        assert [result async for result in stream] == []


async def test_more_may_be_sent_than_the_window_holds(server: ServerProcess, connect: Connect) -> None:
    """Who sends much and receives late gets every result still; what awaits its answer stays within the bounds."""
    one, many = fresh(), [fresh() for _ in range(WINDOW + 20)]
    history = play(40)
    async with connect(server.url).stream() as stream:
        for item in history:
            await stream.send(event(one, item))
            assert len(stream.unanswered) <= KEYS_REMEMBERED
        for name in many:
            await stream.send(event(name, "a"))
            assert len(stream.unanswered) <= WINDOW
        results = [result async for result in stream]
    for number, answer in enumerate(results[:40], 1):
        check(answer, history[:number], 1)
    assert [(answer.session_id, answer.step) for answer in results[40:]] == [(name, 1) for name in many]


async def test_a_lost_connection_loses_and_repeats_nothing(proxy: FlakyProxy, connect: Connect) -> None:
    """Connections cut before, between and after answers leave each event applied once and answered in its place."""
    proxy.faults += [Fault(frames=0), Fault(frames=3), Fault(status=503), Fault(frames=0, lost=9), Fault(frames=20)]
    names = [fresh() for _ in range(3)]
    history = play(60)
    async with connect(proxy.url).stream() as stream:
        for number, item in enumerate(history):
            await stream.send(event(names[number % 3], item))
        results = [result async for result in stream]
    for number, answer in enumerate(results):
        assert answer.session_id == names[number % 3]
        check(answer, history[number % 3 : number + 1 : 3], 1)
    assert len(results) == len(history)
    assert len(proxy.requests) == 6


async def test_an_answer_that_does_not_come_is_asked_for_anew(proxy: FlakyProxy, connect: Connect) -> None:
    """A connection that stays open and silent is given up after the timeout."""
    proxy.faults += [Fault(frames=1, lost=100)]
    s = fresh()
    async with connect(proxy.url, timeout=0.5).stream() as stream:
        for item in ("a", "b", "c"):
            await stream.send(event(s, item))
        results = [result async for result in stream]
    for number, answer in enumerate(results, 1):
        check(answer, ["a", "b", "c"][:number], 1)


async def test_a_stream_outlives_its_server(proxy: FlakyProxy, start_server: Start, connect: Connect) -> None:
    """After a server that stops another one answers; without the session it begins anew, or refuses a known step."""
    first, second = start_server(), start_server()
    proxy.upstream = first.port
    s = fresh()
    async with connect(proxy.url).stream() as stream:
        await stream.send(event(s, "a"))
        check(await stream.receive(), ["a"], 1)
        proxy.upstream = second.port
        first.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(first.process.wait, 30)
        await stream.send(event(s, "b", expected_step=1))
        await stream.send(event(s, "c"))
        gone, anew = [result async for result in stream]
    assert isinstance(gone, RefusedError)
    assert gone.code == "session_gone"
    assert anew.state == "new"


async def test_a_stream_that_gives_up_can_go_on(proxy: FlakyProxy, connect: Connect) -> None:
    """When no connection is to be had the events that have no result are kept, and asked for again on request."""
    s = fresh()
    proxy.faults += [Fault(frames=1), Fault(status=503)]
    async with connect(proxy.url, retries=Retries(tries=2, first=0.001)).stream() as stream:
        await stream.send(event(s, "a"))
        check(await stream.receive(), ["a"], 1)
        await stream.send(event(s, "b"))
        with pytest.raises(RefusedError, match="503"):
            await stream.receive()
        await stream.send(event(s, "c"))
        assert [(kept.items, len(kept.idempotency_key)) for kept in stream.unanswered] == [(["b"], 32), (["c"], 32)]
        check(await stream.receive(), ["a", "b"], 1)
        check(await stream.receive(), ["a", "b", "c"], 1)


async def test_tasks_may_send_while_others_receive(proxy: FlakyProxy) -> None:
    """Several tasks that send and several that receive share a stream, its connection cut again and again."""
    proxy.faults += [Fault(frames=frames, lost=lost) for frames, lost in ((5, 1), (0, 3), (17, 2), (40, 1), (1, 1))]
    names = [fresh() for _ in range(5)]
    history = play(30)
    answers: dict[str, list[SessionAnswer]] = {name: [] for name in names}

    async with AsyncClient(proxy.url, retries=QUICK) as client, client.stream() as stream:

        async def send(name: str) -> None:
            for item in history:
                await stream.send(event(name, item))
                await asyncio.sleep(0)

        async def receive() -> None:
            for _ in range(len(history)):
                while not stream.unanswered:
                    await asyncio.sleep(0.001)
                result = await stream.receive()
                assert isinstance(result, SessionAnswer)
                answers[result.session_id].append(result)

        async with asyncio.timeout(60):
            await asyncio.gather(*map(send, names), *(receive() for _ in names))
    for name in names:
        for number, answer in enumerate(sorted(answers[name], key=lambda answer: answer.step), 1):
            check(answer, history[:number], 1)
        assert len(answers[name]) == len(history)


async def test_cancelled_waits_lose_nothing(server: ServerProcess) -> None:
    """A task that stops waiting for a result leaves it to the next one."""
    s = fresh()
    history = play(60)
    results = []
    async with AsyncClient(server.url, retries=QUICK) as client, client.stream() as stream:
        for item in history:
            await stream.send(event(s, item))
            try:
                async with asyncio.timeout(0.0005):
                    results.append(await stream.receive())
            except TimeoutError:
                pass
        results += [result async for result in stream]
    for number, answer in enumerate(results, 1):
        assert isinstance(answer, SessionAnswer)
        check(answer, history[:number], 1)
    assert len(results) == len(history)


async def test_a_cancelled_send_does_not_disturb_the_order(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cancelled send may have left half done is sent anew on another connection, in its place."""
    s = fresh()
    async with AsyncClient(server.url, retries=QUICK) as client, client.stream() as stream:
        await stream.send(event(s, "a"))
        stuck = asyncio.Event()
        monkeypatch.setattr(stream._connection, "send", lambda message: stuck.wait())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream.send(event(s, "b"))
        async with asyncio.timeout(30):
            await stream.send(event(s, "c"))
            results = [result async for result in stream]
    for number, answer in enumerate(results, 1):
        assert isinstance(answer, SessionAnswer)
        check(answer, ["a", "b", "c"][:number], 1)
    assert len(results) == 3


def answer_of(session_id: str) -> bytes:
    """An answer on the wire."""
    return encode(SessionAnswer(session_id, 1, "new", "m", [], []))


def test_an_answer_to_another_event_is_noticed() -> None:
    """A message that cannot answer the oldest event is an error, and the event still waits."""
    pipeline = Pipeline()
    pipeline.add(event("s", "a"))
    for message in (answer_of("t"), b"{}", b"no"):
        with pytest.raises(AnswerError):
            pipeline.take(message)
    assert pipeline.take(answer_of("s")).session_id == "s"
    assert len(pipeline) == 0


def test_a_session_answered_has_room_again() -> None:
    """The bound of a session is of what awaits its answer, and a new connection repeats just that."""
    pipeline = Pipeline()
    messages = [pipeline.add(event("s", "a")) for _ in range(KEYS_REMEMBERED)]
    assert (pipeline.is_full("s"), pipeline.is_full("t")) == (True, False)
    assert pipeline.messages() == messages
    pipeline.take(answer_of("s"))
    assert (pipeline.is_full("s"), pipeline.messages()) == (False, messages[1:])
