"""Events over a WebSocket: a message each, answered in the order in which they came."""

from __future__ import annotations

from asyncio import Future, Queue, create_task, get_running_loop
from time import perf_counter

import msgspec
from starlette.types import Message, Receive, Scope, Send

from arraylstm_serve.call import BEARER_PROTOCOL, REQUEST_ID, Call
from arraylstm_serve.problems import Problem
from arraylstm_serve.schemas import BulkEvent
from arraylstm_serve.service import Service
from arraylstm_serve.wire import decode, problem_response

PATH = "/v1/stream"
IN_FLIGHT = 64
"""Messages of one connection that may be under way; further ones wait in the network."""

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
    replies: Replies = Queue(IN_FLIGHT)
    answering = create_task(_answer(replies, send))
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            call.arrived = perf_counter()
            await replies.put(_advance(service, call, message))
    finally:
        answering.cancel()


def _advance(service: Service, call: Call, message: Message) -> Future[bytes]:
    """The reply to one message."""
    reply: Future[bytes] = get_running_loop().create_future()
    try:
        event = decode(_decoder, message.get("bytes") or message.get("text") or b"")
        service.advance(call, event.session_id, event, event.idempotency_key, reply)
    except Problem as problem:
        reply.set_exception(problem)
    return reply


async def _answer(replies: Replies, send: Send) -> None:
    """Send replies in their order."""
    while True:
        reply = await replies.get()
        try:
            answer = await reply
        except Problem as problem:
            answer = problem.body()
        await send({"type": "websocket.send", "text": answer.decode()})
