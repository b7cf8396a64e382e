"""The clients against a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from arraylstm_serve.application import OPERATIONS
from arraylstm_serve.client import (
    AnswerError,
    AsyncClient,
    Client,
    RefusedError,
    SessionAnswer,
    SessionGoneError,
    StepConflictError,
    UnknownSessionError,
    calls,
)

from ..servers import ServerProcess, Start
from .bundles import FINGERPRINT, LABELS, write_bundle
from .clients import Connect, Face, check, event, fresh
from .clients import connect as connect

pytestmark = pytest.mark.anyio

ABSENT = ["cyclopts", "fastapi", "numpy", "onnxruntime", "prometheus_client", "safetensors", "starlette", "uvicorn"]
PROGRAM = f"import sys; [sys.modules.setdefault(name, None) for name in {ABSENT}]; import arraylstm_serve.client"


def test_the_client_imports_where_the_server_cannot_run() -> None:
    """Importing the client needs none of the packages that serving needs, the wire's types apart."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_the_package_has_the_servers_classes_and_no_others() -> None:
    """Bundle and Settings come with the package when they are asked for; other names are no attributes."""
    import arraylstm_serve

    assert arraylstm_serve.Bundle.__module__ == "arraylstm_serve.bundle.load"
    assert arraylstm_serve.Settings.__module__ == "arraylstm_serve.settings"
    assert not hasattr(arraylstm_serve, "Bundles")


def test_every_call_is_an_operation_of_the_server() -> None:
    """Methods and paths are those of the API's description."""
    core = calls.SessionCore("anna")
    made = [
        calls.predict(["a"], 1, ()),
        calls.send_many([]),
        calls.model(),
        calls.health(),
        calls.ready(),
        core._send(["a"], 1, (), False, None),
        core._peek(1),
        core._info(),
        core._remove(None),
        core._export_state(),
        core._import_state(b"", None),
    ]
    known = {(operation.method, operation.path.replace("{session_id}", "anna")) for operation in OPERATIONS}
    assert {(call.method, call.path.partition("?")[0]) for call in made} <= known


async def test_a_session_is_told_what_the_model_says(server: ServerProcess, connect: Connect) -> None:
    """Sends, peeks and infos give the reference's answers and the step; a removed session begins anew."""
    async with connect(server.url) as client:
        anna = client.session(fresh())
        first = await anna.send(["a", "b"])
        second = await anna.send([5])
        check(first, ["a", "b"], 2)
        check(second, ["a", "b", 5], 1)
        assert (first.state, second.state, second.model, second.session_id) == (
            "new",
            "continued",
            FINGERPRINT,
            anna.session_id,
        )
        peeked = await anna.peek(top_k=3)
        assert (peeked.predictions, peeked.observed) == (second.predictions[:3], [])
        info = await anna.info()
        assert (info.step, info.recent, anna.step) == (3, ["a", "b", 5], 3)
        await anna.remove()
        assert anna.step == 0
        assert (await anna.send(["a"])).state == "new"


async def test_predictions_can_be_fewer_and_leave_items_out(server: ServerProcess, connect: Connect) -> None:
    """top_k and exclude are heeded in sessions and without."""
    s = fresh()
    async with connect(server.url) as client:
        every = await client.predict(["a", "b"])
        some = await client.predict(["a", "b"], top_k=2, exclude=[every.predictions[0].item])
        sent = await client.session(s).send(["a", "b"], top_k=2, exclude=[every.predictions[0].item])
    assert some.predictions == sent.predictions == every.predictions[1:3]


async def test_a_server_tells_of_itself(server: ServerProcess, connect: Connect) -> None:
    """Manifest, health and readiness come as they are."""
    async with connect(server.url) as client:
        assert (await client.model())["fingerprint"] == FINGERPRINT
        assert (await client.health()).status == "ok"
        assert await client.ready() is True


async def test_answers_tell_which_items_were_unknown(tmp_path: Path, connect: Connect) -> None:
    """Both clients show it in sessions, in bulk and without a session; an item of the other type is a known one."""
    labels: list[str | int] = ["<unk>", "5", "6", "7", 8, 9, "9"]
    bundle = write_bundle(tmp_path / "digits", labels=labels, unknown="<unk>")
    server = ServerProcess(bundle)
    try:
        async with connect(server.url) as client:
            answers = [await client.session("u").send([5, "zebra"]), await client.predict([5, "zebra"])]
            answers += await client.send_many([event("v", 5, "zebra")])
            assert [[each.unknown for each in answer.observed] for answer in answers] == [[False, True]] * 3
            assert (await client.session("u").info()).recent == ["5", "zebra"]
    finally:
        server.stop()


async def test_a_server_that_drains_is_not_ready(connect: Connect) -> None:
    """503 of /readyz is an answer, whoever gives it."""
    for body in (b'{"status":"draining"}', b"<html>"):
        async with stubbed(connect, httpx.Response(503, content=body)) as client:
            assert await client.ready() is False


async def test_an_end_is_an_end(server: ServerProcess, connect: Connect) -> None:
    """A session that ended is unknown, and what is sent next begins it anew."""
    async with connect(server.url) as client:
        anna = client.session(fresh())
        check(await anna.send(["a", "b"], end=True), ["a", "b"], 2)
        assert anna.step == 0
        with pytest.raises(UnknownSessionError):
            await anna.info()
        check(await anna.send(["c"]), ["c"], 1)


async def test_who_knows_the_step_is_not_outrun(server: ServerProcess, connect: Connect) -> None:
    """A strict session is refused with the actual step once another writer has moved it; one that is not goes on."""
    s = fresh()
    async with connect(server.url) as client:
        mine, other = client.session(s), client.session(s, strict=False)
        await mine.send(["a"])
        await other.send(["b", "c"])
        with pytest.raises(StepConflictError) as caught:
            await mine.send(["d"])
        assert (caught.value.step, caught.value.code, caught.value.status) == (3, "step_conflict", 409)
        assert "step 3" in caught.value.detail
        mine.target.step = caught.value.step
        check(await mine.send(["d"]), ["a", "b", "c", "d"], 1)
        check(await other.send(["e"]), ["a", "b", "c", "d", "e"], 1)


async def test_a_known_step_can_be_given(server: ServerProcess, connect: Connect) -> None:
    """A session that is to be new, or to stand somewhere, is refused where it is not so."""
    s, t = fresh(), fresh()
    async with connect(server.url) as client:
        await client.session(s, step=0).send(["a"])
        with pytest.raises(StepConflictError):
            await client.session(s, step=0).send(["a"])
        with pytest.raises(SessionGoneError) as caught:
            await client.session(t, step=5).send(["a"])
        assert (caught.value.code, caught.value.session_id, caught.value.step) == ("session_gone", t, None)
        check(await client.session(s, step=1).send(["b"]), ["a", "b"], 1)


async def test_peeking_and_asking_leave_the_step(server: ServerProcess, connect: Connect) -> None:
    """Only what the object itself has sent moves its step, so that looking hides no other writer."""
    s = fresh()
    async with connect(server.url) as client:
        mine = client.session(s)
        await client.session(s).send(["a"])
        await mine.peek()
        await mine.info()
        assert mine.step is None


@pytest.mark.parametrize("name", ["...", ".a", "~a:b-C_9.", "x" * 128])
async def test_every_name_of_a_session_can_be_called(server: ServerProcess, connect: Connect, name: str) -> None:
    """Names that look like path segments of URLs reach their session."""
    async with connect(server.url) as client:
        session = client.session(name)
        assert (await session.send(["a"])).session_id == name
        assert (await session.info()).session_id == name
        assert [result.session_id for result in await client.send_many([event(name, "b")])] == [name]


async def test_mistakes_of_the_caller_are_told_at_once(connect: Connect) -> None:
    """Names, keys, items and URLs that cannot be are refused before anything is sent."""
    with pytest.raises(ValueError, match="localhost:8080"):
        connect("localhost:8080")
    async with connect("http://localhost:1") as client:
        for name in ("", ".", "..", "a/b", "x" * 129):
            with pytest.raises(ValueError, match="session id"):
                client.session(name)
        session = client.session("s")
        for keyed, *values in ((session.send, ["a"]), (session.remove,), (session.import_state, b"")):
            with pytest.raises(ValueError, match="idempotency key"):
                await keyed(*values, key="é")
        for call in (client.predict, client.session("s").send):
            with pytest.raises(TypeError, match="must be a list"):
                await call("abc")
        with pytest.raises(ValueError, match="17 events"):
            await client.send_many([event("s", "a")] * 17)


async def test_what_the_server_refuses_is_told_with_its_reason(server: ServerProcess, connect: Connect) -> None:
    """A refusal has status, code and detail, and moves nothing."""
    s = fresh()
    async with connect(server.url) as client:
        with pytest.raises(RefusedError, match="unknown_item") as caught:
            await client.session(s).send(["a", "nope"])
        assert (caught.value.status, caught.value.code) == (422, "unknown_item")
        assert '"nope"' in caught.value.detail
        with pytest.raises(UnknownSessionError):
            await client.session(s).peek()
        await client.session(s).remove()


async def test_answers_of_something_else_are_no_answers(connect: Connect) -> None:
    """A page instead of JSON, or JSON of another kind, is an error of its own; so is a refusal without a problem."""
    for body in (b"<html>", b"{}", b'{"session_id":"s","step":"x"}', b"\xff"):
        async with stubbed(connect, httpx.Response(200, content=body)) as client:
            with pytest.raises(AnswerError, match="SessionAnswer"):
                await client.session("s").send(["a"])
    async with stubbed(connect, httpx.Response(404, content=b"<html>gone")) as client:
        with pytest.raises(RefusedError, match=r"404: HTTP 404 Not Found: <html>gone") as caught:
            await client.session("s").send(["a"])
        assert (caught.value.status, caught.value.code) == (404, "")
    async with stubbed(connect, httpx.Response(200, content=b'{"results":[]}')) as client:
        with pytest.raises(AnswerError, match="0 results for 1 events"):
            await client.send_many([event("s", "a")])


async def test_a_given_carrier_is_used_and_left_open(connect: Connect) -> None:
    """An httpx client of the caller's carries the requests and stays the caller's; the URL may have a path."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "ok"})

    carrier = carrier_for(connect, answer)
    async with connect("http://gateway/models/one/", "secret", http=carrier, timeout=3) as client:
        await client.health()
    assert str(seen[0].url) == "http://gateway/models/one/healthz"
    assert seen[0].headers["Authorization"] == "Bearer secret"
    assert set(seen[0].extensions["timeout"].values()) == {3}
    assert not carrier.is_closed


async def test_a_key_lets_in_to_its_own_sessions(start_server: Start, connect: Connect, tmp_path: Path) -> None:
    """With the API key calls and streams are answered, without it refused; another key sees other sessions."""
    keys = {name: make_key(tmp_path / "keys", name) for name in ("shop", "lab")}
    url = start_server("--api-keys", str(tmp_path / "keys")).url
    async with connect(url, keys["shop"]) as shop, connect(url, keys["lab"]) as lab, connect(url) as nobody:
        check(await shop.session("s").send(["a"]), ["a"], 1)
        with pytest.raises(UnknownSessionError):
            await lab.session("s").info()
        with pytest.raises(RefusedError, match="unauthorized"):
            await nobody.session("s").info()
        with pytest.raises(RefusedError, match="unauthorized"):
            await nobody.stream().__aenter__()
        async with shop.stream() as stream:
            await stream.send(event("s", "b"))
            check(await stream.receive(), ["a", "b"], 1)


async def test_many_events_are_answered_in_their_order(server: ServerProcess, connect: Connect) -> None:
    """Each event of a bulk request has its answer or its refusal in its place; a refusal knows its event's key."""
    s, t, u = fresh(), fresh(), fresh()
    events = [
        event(s, "a", "b"),
        event(t, "nope", idempotency_key="mine"),
        event(s, "c", expected_step=2, top_k=1),
        event(u, "a", expected_step=9),
    ]
    async with connect(server.url) as client:
        first, unknown, second, gone = await client.send_many(events)
    check(first, ["a", "b"], 2)
    assert (second.step, second.state, len(second.predictions)) == (3, "continued", 1)
    assert isinstance(unknown, RefusedError)
    assert (unknown.status, unknown.code, unknown.key) == (422, "unknown_item", "mine")
    assert isinstance(gone, SessionGoneError)
    assert events[0].idempotency_key is None


async def test_a_bulk_request_may_be_refused_as_a_whole(start_server: Start, connect: Connect) -> None:
    """More events than the server takes are a refusal, not a result; guarded events of one session may be many."""
    async with connect(start_server("--max-events", "20").url) as client:
        guarded = [event("s", LABELS[step % 5], expected_step=step) for step in range(20)]
        results = await client.send_many(guarded)
        assert [result.step for result in results] == list(range(1, 21))
        with pytest.raises(RefusedError, match="at most 20 are allowed"):
            await client.send_many([*guarded, event("t", "a")])


async def test_a_state_moves_to_another_session_and_server(start_server: Start, connect: Connect) -> None:
    """What was exported goes on elsewhere as if it had been there always, and says that it was restored."""
    async with connect(start_server().url) as old, connect(start_server().url) as new:
        await old.session("s").send(["a", "b"])
        state = await old.session("s").export_state()
        moved = new.session("t")
        info = await moved.import_state(state)
        assert (info.session_id, info.step, moved.step) == ("t", 2, 2)
        answer = await moved.send(["c"])
        assert answer.state == "restored"
        check(answer, ["a", "b", "c"], 1)
        with pytest.raises(RefusedError, match="invalid_state"):
            await moved.import_state(state[:-1])
        with pytest.raises(UnknownSessionError):
            await new.session("s").export_state()


def make_key(file: Path, name: str) -> str:
    """A new API key that the file lets in."""
    command = [sys.executable, "-m", "arraylstm_serve", "make-key", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with file.open("a") as lines:
        lines.write(done.stdout)
    return done.stderr.strip().rpartition(" ")[2]


def carrier_for(
    connect: Connect, answer: Callable[[httpx.Request], httpx.Response]
) -> httpx.Client | httpx.AsyncClient:
    """An httpx client of the right kind that never reaches a network."""
    kinds = {Client: httpx.Client, AsyncClient: httpx.AsyncClient}
    return kinds[type(connect("http://x").target)](transport=httpx.MockTransport(answer))


def stubbed(connect: Connect, response: httpx.Response) -> Face:
    """A client that always gets one answer."""
    return connect("http://x", http=carrier_for(connect, lambda request: response))


def test_answers_are_the_wires_own_types() -> None:
    """The types that the client exports are those that the server encodes."""
    from arraylstm_serve import client
    from arraylstm_serve.api import schemas

    assert client.SessionAnswer is schemas.SessionAnswer is SessionAnswer
