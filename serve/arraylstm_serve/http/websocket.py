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
from arraylstm_serve.api.problems import FOREIGN_ORIGIN, UPGRADE_REQUIRED, Problem, internal
from arraylstm_serve.api.schemas import BulkEvent
from arraylstm_serve.http.body import decode
from arraylstm_serve.http.endpoints import Endpoint
from arraylstm_serve.http.events import advance
from arraylstm_serve.http.request import BEARER_PROTOCOL, REQUEST_ID, RequestHead
from arraylstm_serve.http.response import CLIENT_GONE, OTHER, problem_response, record
from arraylstm_serve.http.uvicorn_hooks import GOING_DOWN, KEY, KEY_REMOVED
from arraylstm_serve.sessions.service import Service

PATH = "/v1/stream"
IN_FLIGHT = 64
"""The most messages of one connection that are pending; further ones wait in the network."""

logger = logging.getLogger(__name__)
WHY_CLOSED = {GOING_DOWN: "", KEY_REMOVED: "the API key is no longer accepted"}
"""The close codes with which the server ends a stream, each with the reason that it gives."""

_decoder = msgspec.json.Decoder(BulkEvent)

Replies = Queue[Future[bytes] | None]

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
            await _converse(service, call, receive, send)
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


async def _converse(service: Service, call: RequestHead, receive: Receive, send: Send) -> None:
    """Answer messages until the client or the server ends the connection; then end it once they are answered."""
    settings = service.settings
    places = Semaphore(min(IN_FLIGHT, settings.max_session_pending, settings.max_pending))
    replies: Replies = Queue()
    answering = create_task(_answer(replies, places, send))
    try:
        while await places.acquire() and (message := await receive())["type"] != "websocket.disconnect":
            call.arrived = perf_counter()
            replies.put_nowait(_advance(service, call, message))
        replies.put_nowait(None)
        await answering
        if message["code"] in WHY_CLOSED:
            await _say(
                send, {"type": "websocket.close", "code": message["code"], "reason": WHY_CLOSED[message["code"]]}
            )
    except CancelledError:  # --shutdown-timeout is over: the connection is closed without more answers
        pass
    finally:
        answering.cancel()


def _advance(service: Service, call: RequestHead, message: Message) -> Future[bytes]:
    """Carry out the event in a message, and return its reply."""
    reply: Future[bytes] = get_running_loop().create_future()
    reply.add_done_callback(_heed)
    try:
        if call.key is not None:
            call.key.require_accepted()
        event = _decoded(service, call, message)
        caller = call.caller(service.settings.request_timeout)
        service.perform(advance(event.session_id, event.idempotency_key, event), caller, reply)
    except Problem as problem:
        reply.set_exception(problem)
    except Exception:
        logger.exception("a message of %s failed", PATH)
        reply.set_exception(internal())
    return reply


def _decoded(service: Service, call: RequestHead, message: Message) -> BulkEvent:
    """Return the event in a message.

    Raises:
        Problem: the message is not an event.
    """
    try:
        return decode(_decoder, message.get("bytes") or message.get("text") or b"")
    except Problem as problem:
        service.refused_event(problem, call.arrived)
        raise


def _heed(reply: Future[bytes]) -> None:
    """Look at a reply's exception, which asyncio logs as forgotten where the client has gone before the reply."""
    if not reply.cancelled():
        reply.exception()


async def _answer(replies: Replies, places: Semaphore, send: Send) -> None:
    """Send replies in their order, and free a place after each."""
    while (reply := await replies.get()) is not None:
        try:
            answer = await reply
        except Problem as problem:
            answer = problem.body()
        await _say(send, {"type": "websocket.send", "text": answer.decode()})
        places.release()


async def _say(send: Send, message: Message) -> None:
    """Send a message, unless the client has gone; then uvicorn raises one of these two errors."""
    with suppress(OSError, RuntimeError):
        await send(message)


async def stream_upgrade(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer a GET /v1/stream that does not ask for a WebSocket."""
    detail = f"{PATH} is a WebSocket; connect to it with one."
    return problem_response(Problem(UPGRADE_REQUIRED, detail, headers={"Upgrade": "websocket"}))


ENDPOINT = Endpoint(STREAM, stream_upgrade)
