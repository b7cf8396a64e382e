"""Events over a WebSocket: one in each message, answered in the order of the messages."""

from __future__ import annotations

import logging
from asyncio import CancelledError, Future, Queue, Semaphore, create_task, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import FOREIGN_ORIGIN, UPGRADE_REQUIRED, Problem, internal, late
from arraylstm_serve.api.schemas import BulkEvent
from arraylstm_serve.heavy import LIGHT_BODY
from arraylstm_serve.http.body import DECODED, decode
from arraylstm_serve.http.endpoints import Endpoint
from arraylstm_serve.http.events import advance
from arraylstm_serve.http.request import BEARER_PROTOCOL, REQUEST_ID, RequestHead
from arraylstm_serve.http.response import CLIENT_GONE, OTHER, problem_response, record
from arraylstm_serve.http.uvicorn_hooks import GOING_DOWN, KEY, KEY_REMOVED
from arraylstm_serve.sessions.commands import Caller
from arraylstm_serve.sessions.service import Service

PATH = "/v1/stream"
IN_FLIGHT = 64
"""The most messages of one connection that are pending; further ones wait in the network."""

ANSWERS = 16
"""A message takes another of these places for each so many predictions and observations in its answer."""

logger = logging.getLogger(__name__)
WHY_CLOSED = {GOING_DOWN: "", KEY_REMOVED: "the API key is no longer accepted"}
"""The close codes with which the server ends a stream, each with the reason that it gives."""

_decoder = msgspec.json.Decoder(BulkEvent)

STREAM = Operation(
    method="GET",
    path=PATH,
    name="stream",
    summary="A WebSocket: each message is a BulkEvent, answered in order with a SessionAnswer or a ProblemBody.",
    answers={101: None},
    problems=(FOREIGN_ORIGIN, UPGRADE_REQUIRED),
)


Check = Callable[[RequestHead, Scope], None]
"""Refuses a handshake with a Problem, or notes in its head whose it is."""


async def handle(service: Service, check: Check, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket until the client closes it, its API key is removed, or the server stops."""
    call = RequestHead(scope)
    await receive()  # the request to connect
    status = CLIENT_GONE
    try:
        status = await _shake_hands(check, call, scope, receive, send)
    finally:
        record(service, call, scope, PATH if scope["path"] == PATH else OTHER, status)
    if status == HTTPStatus.SWITCHING_PROTOCOLS:
        service.counters.streams += 1
        try:
            await _Conversation(service, call, send).run(receive)
        finally:
            service.counters.streams -= 1


async def _shake_hands(check: Check, call: RequestHead, scope: Scope, receive: Receive, send: Send) -> int:
    """Accept a connection or refuse it. Return the status that the client gets."""
    try:
        check(call, scope)
    except Problem as problem:
        problem.headers[REQUEST_ID.decode()] = call.request_id.decode()
        await problem_response(problem)(scope, receive, send)  # Starlette refuses the handshake with it
        return problem.kind.status
    scope[KEY] = call.key
    protocol = BEARER_PROTOCOL if BEARER_PROTOCOL in scope["subprotocols"] else None
    head = [(REQUEST_ID, call.request_id)]
    await send({"type": "websocket.accept", "subprotocol": protocol, "headers": head})
    return HTTPStatus.SWITCHING_PROTOCOLS


class _Conversation:
    """The messages of one WebSocket, and their answers.

    Each message takes places, by the length of its answer, until the answer is sent; without places, messages wait in
    the network. So little is held for a client that does not read.
    """

    def __init__(self, service: Service, call: RequestHead, send: Send) -> None:
        settings = service.settings
        self._service = service
        self._call = call
        self._send = send
        quota = settings.quota_pending or settings.max_pending
        self._most = min(IN_FLIGHT, settings.max_session_pending, settings.max_pending, quota)
        self._places = Semaphore(self._most)
        self._replies: Queue[tuple[Future[bytes], int] | None] = Queue()

    async def run(self, receive: Receive) -> None:
        """Answer messages until the client or the server ends the connection; then end it once they are answered."""
        answering = create_task(self._answer())
        try:
            while await self._places.acquire() and (message := await receive())["type"] != "websocket.disconnect":
                self._call.arrived = perf_counter()
                await self._take(message.get("bytes") or message.get("text") or b"")
            self._replies.put_nowait(None)
            await answering
            if (code := message["code"]) in WHY_CLOSED:
                await _say(self._send, {"type": "websocket.close", "code": code, "reason": WHY_CLOSED[code]})
        except CancelledError:  # --shutdown-timeout is over: the connection is closed without more answers
            pass
        finally:
            answering.cancel()

    async def _take(self, message: bytes | str) -> None:
        """Carry out the event in a message; its answer is sent after those to earlier messages."""
        service, call = self._service, self._call
        reply: Future[bytes] = get_running_loop().create_future()
        reply.add_done_callback(_heed)
        places = 1
        try:
            if call.key is not None:
                call.key.require_accepted()
            event = await self._event(message, reply)
            places = min(self._most, 1 + (len(event.items) + event.top_k) // ANSWERS)
            for _ in range(places - 1):
                await self._places.acquire()
            caller = call.caller(service.settings.request_timeout)
            await self._take_share(caller, reply)
            service.perform(advance(event.session_id, event.idempotency_key, event), caller, reply)
        except Problem as problem:
            reply.set_exception(problem)
        except Exception:
            logger.exception("a message of %s failed", PATH)
            reply.set_exception(internal())
        self._replies.put_nowait((reply, places))

    async def _take_share(self, caller: Caller, reply: Future[bytes]) -> None:
        """Wait for a place among those that bulk requests and streams have; it is free again with the reply.

        Raises:
            Problem: `deadline_exceeded`.
        """
        service = self._service
        try:
            await service.bulk_share.take(caller.client, 1, caller.deadline - perf_counter())
        except TimeoutError:
            problem = late()
            service.refused_event(problem, caller.arrived)
            raise problem from None
        reply.add_done_callback(lambda _: service.bulk_share.give(1))

    async def _event(self, message: bytes | str, reply: Future[bytes]) -> BulkEvent:
        """Return the event in a message. A long one waits for memory, which it has until its reply, and for its turn.

        Raises:
            Problem: the message is not an event, there was no memory in time, or there are too many a second.
        """
        service, call = self._service, self._call
        try:
            service.rates.spend(call.client)
            await service.admission.enter(call.client)
            if len(message) > LIGHT_BODY:
                size = DECODED * len(message)
                size = await service.bodies.take(call.client, size, service.settings.request_timeout)
                reply.add_done_callback(lambda _: service.bodies.give(call.client, size))
                await service.heavy.turn(call.client)
            return decode(_decoder, message)
        except Problem as problem:
            service.refused_event(problem, call.arrived)
            raise

    async def _answer(self) -> None:
        """Send replies in their order, and free the places of each."""
        while (entry := await self._replies.get()) is not None:
            reply, places = entry
            try:
                answer = await reply
            except Problem as problem:
                answer = problem.body()
            await _say(self._send, {"type": "websocket.send", "text": answer.decode()})
            for _ in range(places):
                self._places.release()


def _heed(reply: Future[bytes]) -> None:
    """Look at a reply's exception, which asyncio logs as forgotten where the client has gone before the reply."""
    if not reply.cancelled():
        reply.exception()


async def _say(send: Send, message: Message) -> None:
    """Send a message, unless the client has gone; then uvicorn raises one of these two errors."""
    with suppress(OSError, RuntimeError):
        await send(message)


async def stream_upgrade(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer a GET /v1/stream that does not ask for a WebSocket."""
    detail = f"{PATH} is a WebSocket; connect to it with one."
    return problem_response(Problem(UPGRADE_REQUIRED, detail, headers={"Upgrade": "websocket"}))


ENDPOINT = Endpoint(STREAM, stream_upgrade)
