"""Events over a WebSocket, with a real client over a real port."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from arraylstm_serve.http.websocket import IN_FLIGHT

from ..waiting import until_soon
from .answers import near
from .bundles import LABELS, expected_observed, expected_predictions
from .harness import Harness, listening, observed, predictions

pytestmark = pytest.mark.anyio


@pytest.fixture
async def address(harness: Harness) -> AsyncIterator[str]:
    """Where the harness listens."""
    async with listening(harness) as address:
        yield address


def message(session_id: str, *items: Any, **fields: Any) -> str:
    """A message."""
    return json.dumps({"session_id": session_id, "items": list(items), **fields})


async def heard(stream: ClientConnection, count: int = 1) -> list[dict[str, Any]]:
    """The next answers."""
    return [json.loads(await stream.recv()) for _ in range(count)]


async def test_each_message_is_answered_as_its_event(address: str) -> None:
    """A message gets one text message, the answer that the model gives to its session's items so far."""
    history: list[Any] = []
    async with connect(f"ws://{address}/v1/stream") as stream:
        for chunk in (["a"], ["b", 5, "5"], ["e"]):
            history += chunk
            await stream.send(message("u", *chunk, top_k=3))
            text = await stream.recv()
            assert isinstance(text, str)
            answer = json.loads(text)
            assert predictions(answer) == near(expected_predictions(history, 3))
            assert observed(answer) == near(expected_observed(history, len(chunk)))
            assert (answer["session_id"], answer["step"]) == ("u", len(history))


async def test_text_and_binary_messages_are_alike(address: str) -> None:
    """The same JSON in a binary message is the same event."""
    async with connect(f"ws://{address}/v1/stream") as stream:
        await stream.send(message("u", "a"))
        await stream.send(message("v", "a").encode())
        first, second = await heard(stream, 2)
        assert second == first | {"session_id": "v"}


async def test_answers_come_in_the_order_of_the_messages(harness: Harness, address: str) -> None:
    """A quick event behind a slow one, and a refusal behind both, are answered after them."""
    async with connect(f"ws://{address}/v1/stream") as stream:
        for text in (message("slow", *["a"] * 300), message("quick", "b"), "no json", message("slow", "c")):
            await stream.send(text)
        answers = await heard(stream, 4)
    assert [answer.get("step") or answer["code"] for answer in answers] == [300, 1, "invalid_json", 301]


REFUSED = [
    ("{", "invalid_json"),
    ("", "invalid_json"),
    (b"\xff", "invalid_json"),
    ("[]", "invalid_request"),
    ('{"items": ["a"]}', "invalid_request"),
    (message("u"), "invalid_request"),
    (message("a b", "a"), "invalid_request"),
    (message("u", "a", key="k"), "invalid_request"),
    (message("u", "a", idempotency_key=""), "invalid_request"),
    (message("u", "zebra"), "unknown_item"),
    (message("u", *["a"] * 1001), "invalid_request"),
    (message("u", "a", expected_step=7), "step_conflict"),
    (message("v", "a", expected_step=7), "session_gone"),
]


async def test_a_refused_message_does_not_end_the_stream(address: str) -> None:
    """Whatever is wrong with a message is answered in its place, and the next one is served."""
    async with connect(f"ws://{address}/v1/stream") as stream:
        await stream.send(message("u", "a"))
        await heard(stream)
        for number, (text, code) in enumerate(REFUSED):
            await stream.send(text)
            await stream.send(message("u", "b"))
            refused, answer = await heard(stream, 2)
            assert (refused["code"], answer["step"]) == (code, number + 2)
            assert {"type", "title", "status", "detail"} <= set(refused)


async def test_more_messages_than_may_be_under_way_are_all_answered(harness: Harness, address: str) -> None:
    """Messages sent at once, many times what may be in flight, wait in the network and lose nothing."""
    count = 10 * IN_FLIGHT
    most = 0

    def look(_: object) -> None:
        nonlocal most
        most = max(most, harness.service.pending)

    harness.engine.before = look
    async with connect(f"ws://{address}/v1/stream") as stream:
        sending = asyncio.create_task(send_all(stream, [message(f"s{n % 7}", LABELS[n % 5]) for n in range(count)]))
        answers = await heard(stream, count)
        await sending
    assert [(answer["session_id"], answer["step"]) for answer in answers] == [
        (f"s{n % 7}", n // 7 + 1) for n in range(count)
    ]
    assert 1 < most <= IN_FLIGHT


@pytest.mark.parametrize("bounds", [{}, {"max_session_pending": 3}, {"max_pending": 2}])
async def test_one_session_alone_is_never_too_busy_for_its_stream(bundle_path: Path, bounds: dict[str, int]) -> None:
    """However many messages of one session are sent at once over one stream, none is refused for too many pending."""
    harness = Harness(bundle_path, **bounds)
    async with listening(harness) as address, connect(f"ws://{address}/v1/stream") as stream:
        sending = asyncio.create_task(send_all(stream, [message("u", "a", "b")] * 300))
        assert [answer["step"] for answer in await heard(stream, 300)] == list(range(2, 601, 2))
        await sending


async def send_all(stream: ClientConnection, messages: list[str]) -> None:
    """Send without waiting for answers."""
    for text in messages:
        await stream.send(text)


async def test_two_streams_share_a_session(address: str) -> None:
    """Events of one session from two connections apply one after the other, each once."""
    async with connect(f"ws://{address}/v1/stream") as one, connect(f"ws://{address}/v1/stream") as two:
        texts = [message("u", "a")] * 30
        await asyncio.gather(send_all(one, texts), send_all(two, texts))
        steps = [[answer["step"] for answer in await heard(stream, 30)] for stream in (one, two)]
    assert sorted(steps[0] + steps[1]) == list(range(1, 61))
    assert steps == [sorted(part) for part in steps]


async def test_a_key_is_the_same_over_every_way(harness: Harness, address: str) -> None:
    """An event repeated under its key by HTTP, bulk or stream gets the first answer and moves nothing."""
    first = (await harness.send("u", "a", "b", key="k")).text
    event = {"session_id": "u", "items": ["a", "b"], "idempotency_key": "k"}
    async with connect(f"ws://{address}/v1/stream") as stream:
        await stream.send(json.dumps(event))
        assert await stream.recv() == first
    bulk = await harness.client.post("/v1/events", json={"events": [event]})
    assert bulk.text == f'{{"results":[{first}]}}'
    assert (await harness.client.get("/v1/sessions/u")).json()["step"] == 2


async def test_a_message_too_large_ends_the_stream_with_1009(harness: Harness, address: str) -> None:
    """A message beyond max_body closes the connection with the code for it; the server goes on."""
    async with connect(f"ws://{address}/v1/stream") as stream:
        await stream.send(message("u", "a").ljust(harness.service.settings.max_body + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await stream.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert (await harness.send("u", "a")).json()["step"] == 1


@pytest.mark.parametrize("extra", [0, 3 * IN_FLIGHT])
async def test_a_client_that_vanishes_leaves_nothing_behind(
    harness: Harness, address: str, caplog: pytest.LogCaptureFixture, extra: int
) -> None:
    """Events under way when the client is cut off apply once; nothing stays pending and no fault is logged."""
    before = asyncio.all_tasks()
    async with connect(f"ws://{address}/v1/stream") as stream:
        await stream.send(message("u", *["a"] * 500))
        await send_all(stream, [message("u", "b"), "no json"] + [message("v", "c")] * extra)
        await until_soon(lambda: harness.service.pending)
        stream.transport.abort()
        await stream.wait_closed()
    await harness.settle()
    while asyncio.all_tasks() - before:
        await asyncio.wait(asyncio.all_tasks() - before, timeout=10)
    gc.collect()
    assert (await harness.client.get("/v1/sessions/u")).json()["step"] in (500, 501)
    assert harness.service.pending == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert (await harness.send("u", "d")).json()["state"] == "continued"


async def test_a_request_without_an_upgrade_is_told_what_is_there(harness: Harness) -> None:
    """GET /v1/stream without a WebSocket is answered 426 with the protocol to upgrade to."""
    response = await harness.client.get("/v1/stream")
    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")
    assert response.json()["code"] == "upgrade_required"


async def test_the_handshake_has_a_request_id(address: str) -> None:
    """The answer to the handshake carries the client's X-Request-ID, or one of the server's."""
    async with connect(f"ws://{address}/v1/stream", additional_headers={"X-Request-ID": "mine"}) as stream:
        assert stream.response is not None
        assert stream.response.headers.get_all("X-Request-ID") == ["mine"]
    async with connect(f"ws://{address}/v1/stream") as stream:
        assert stream.response is not None
        assert stream.response.headers["X-Request-ID"]
