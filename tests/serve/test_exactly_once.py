"""A session's events are applied in order, each once, over a network that loses requests and answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from arraylstm_serve.bundle.load import Bundle

from ..servers import ServerProcess
from .alone import Alone, same
from .bundles import LABELS, V
from .harness import observed, predictions

pytestmark = pytest.mark.anyio

Start = Callable[..., ServerProcess]
Fate = str
TRIES = 10_000


class Network:
    """A proxy that loses or repeats requests, and loses, cuts or delays answers; a connection has one request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.chance = random.Random(5)
        self.fates: Counter[Fate] = Counter()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Run the proxy, and yield its address."""
        server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one request to the server and its answer back, unless the request's fate is another."""
        fate = self.chance.choice(["fine", "fine", "request lost", "answer lost", "answer cut", "twice", "hung"])
        self.fates[fate] += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")
            )
            request = head + await reader.readexactly(size)
            if fate != "request lost":
                answers = await asyncio.gather(*[self.ask(request, fate) for _ in range(1 + (fate == "twice"))])
                if fate in {"fine", "twice"}:
                    writer.write(answers[-1])
                elif fate == "answer cut":
                    writer.write(answers[0][:-9])
                elif fate == "hung":
                    await reader.read()  # until the client gives up
            await writer.drain()
        writer.close()

    async def ask(self, request: bytes, fate: Fate) -> bytes:
        """Send a request to the server and return the answer; return nothing if the answer is to be lost."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        answer = b""
        if fate != "answer lost":
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-l"))
            answer = head + await reader.readexactly(size)
        writer.close()
        return answer


async def insist(client: httpx.AsyncClient, name: str, items: list[Any], key: str, step: int) -> dict[str, Any]:
    """Send an event again under its key until it is answered, as a careful client does; return the answer."""
    body = {"items": items, "top_k": V, "expected_step": step}
    for _ in range(TRIES):
        with suppress(httpx.TransportError):
            response = await client.post(
                f"/v1/sessions/{name}/events", json=body, headers={"Idempotency-Key": key, "Connection": "close"}
            )
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            return answer
    raise AssertionError(f"{TRIES} tries in vain")


async def test_events_apply_once_and_in_order_over_a_bad_network(bundle_path: Path, start_server: Start) -> None:
    """Despite timeouts, lost answers, repeats and copies at once, every answer has the bits that its items lead to.

    Without remembered answers, a retry would be applied twice, or refused as a conflict although it had been applied.
    """
    server = start_server()
    network, alone = Network(server.port), Alone(Bundle.load(bundle_path))

    async def play(client: httpx.AsyncClient, name: str) -> None:
        chance = random.Random(name)
        chunks = [chance.choices(LABELS, k=chance.randint(1, 3)) for _ in range(12)]
        expected, step = alone.walk(chunks), 0
        for number, items in enumerate(chunks):
            copies = [insist(client, name, items, f"k{number}", step) for _ in range(chance.randint(1, 3))]
            answers = await asyncio.gather(*copies)
            assert all(answer == answers[0] for answer in answers)
            step += len(items)
            assert answers[0]["step"] == step
            assert same((predictions(answers[0]), observed(answers[0])), expected[number])

    async with network.open() as url, httpx.AsyncClient(base_url=url, timeout=0.5) as client:
        await asyncio.gather(*(play(client, f"s{number}") for number in range(16)))
    assert min(network.fates.values()) > 10
    stats = httpx.get(f"{server.url}/v1/stats").json()
    assert stats["events_total"] == 16 * 12
    assert stats["replays_total"] > 50
    assert stats["pending"] == 0


async def test_one_sessions_posts_at_once_apply_in_some_order_each_once(bundle_path: Path, start_server: Start) -> None:
    """64 posts to one session at once, each on its own connection, are applied one after the other.

    Without the session's queue, two of them would step from the same state.
    """
    server = start_server()
    async with httpx.AsyncClient(base_url=server.url, limits=httpx.Limits(max_connections=64)) as client:
        names = [LABELS[number % V] for number in range(64)]
        url = "/v1/sessions/u/events"
        posts = (client.post(url, json={"items": [name, "a"], "top_k": V}) for name in names)
        responses = await asyncio.gather(*posts)
    answers = sorted((response.json() for response in responses), key=lambda answer: answer["step"])
    assert [answer["step"] for answer in answers] == list(range(2, 130, 2))
    applied = [[entry["item"] for entry in answer["observed"]] for answer in answers]
    assert sorted(map(str, applied)) == sorted(str([name, "a"]) for name in names)
    for answer, expected in zip(answers, Alone(Bundle.load(bundle_path)).walk(applied), strict=True):
        assert same((predictions(answer), observed(answer)), expected)


async def test_pipelined_requests_of_a_connection_apply_in_their_order(start_server: Start) -> None:
    """Requests sent at once on one connection are applied and answered in their order."""
    server = start_server()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    bodies = [b'{"items":["a"],"top_k":0,"expected_step":%d}' % number for number in range(40)]
    head = b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    writer.write(b"".join(head % len(body) + body for body in bodies))
    for number in range(40):
        answer = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in answer.split(b"\r\n") if line.startswith(b"content-l"))
        assert b'"step":%d,' % (number + 1) in await reader.readexactly(size)
    writer.close()
