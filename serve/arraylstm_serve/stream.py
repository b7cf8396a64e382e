"""Events over a WebSocket: a message each, answered in the order in which they came."""

from __future__ import annotations

import logging
from asyncio import FIRST_COMPLETED, Future, Queue, create_task, get_running_loop, wait
from time import perf_counter

import msgspec
from starlette.types import Message, Receive, Scope, Send

from arraylstm_serve.call import BEARER_PROTOCOL, REQUEST_ID, Call
from arraylstm_serve.problems import Problem, internal
from arraylstm_serve.schemas import BulkEvent
from arraylstm_serve.service import Service
from arraylstm_serve.wire import decode, problem_response

PATH = "/v1/stream"
IN_FLIGHT = 32
"""Messages of one connection that may be under way; further ones wait in the network."""

logger = logging.getLogger(__name__)
_decoder = msgspec.json.Decoder(BulkEvent)

Replies = Queue[Future[bytes]]


async def handle(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection of WS /v1/stream until the client closes it."""
    call = Call(scope)
    await receive()  # the client's wish to connect
    try:
        call.authorise(service.keys)
    except Problem as problem:
        await problem_response(problem)(scope, receive, send)  # Starlette refuses the handshake with it
        return
    protocol = BEARER_PROTOCOL if BEARER_PROTOCOL in scope["subprotocols"] else None
    headers = [(REQUEST_ID, call.request_id)]
    await send({"type": "websocket.accept", "subprotocol": protocol, "headers": headers})
    own_turns = service.settings.max_session_pending - 2  # one reply is being awaited, one waits to be queued
    replies: Replies = Queue(max(1, min(IN_FLIGHT, own_turns)))
    tasks = {create_task(_listen(service, call, receive, replies)), create_task(_answer(replies, send))}
    try:
        done, _ = await wait(tasks, return_when=FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        await task


async def _listen(service: Service, call: Call, receive: Receive, replies: Replies) -> None:
    """Take messages until the client closes the connection."""
    while (message := await receive())["type"] != "websocket.disconnect":
        call.arrived = perf_counter()
        await replies.put(_advance(service, call, message))


def _advance(service: Service, call: Call, message: Message) -> Future[bytes]:
    """The reply to one message."""
    reply: Future[bytes] = get_running_loop().create_future()
    try:
        event = decode(_decoder, message.get("bytes") or message.get("text") or b"")
        service.advance(call, event.session_id, event, event.idempotency_key, reply)
    except Problem as problem:
        reply.set_exception(problem)
    except Exception:
        logger.exception("a message of %s failed", PATH)
        reply.set_exception(internal())
    return reply


async def _answer(replies: Replies, send: Send) -> None:
    """Send replies in their order, until the client has gone."""
    while True:
        reply = await replies.get()
        try:
            answer = await reply
        except Problem as problem:
            answer = problem.body()
        try:
            await send({"type": "websocket.send", "text": answer.decode()})
        except OSError:  # uvicorn's ClientDisconnected
            return
