"""The bulk route: events of many sessions in one request."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from time import perf_counter

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import (
    FOREIGN_ORIGIN,
    INTERNAL,
    INVALID_JSON,
    INVALID_REQUEST,
    PAYLOAD_TOO_LARGE,
    SESSION_REWOUND,
    STOPPING,
    UNSUPPORTED_ENCODING,
    Problem,
    late,
)
from arraylstm_serve.api.schemas import BulkAnswer, BulkEvent, BulkRequest, encode
from arraylstm_serve.http.body import decode, read_body
from arraylstm_serve.http.endpoints import Endpoint
from arraylstm_serve.http.events import advance
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import StreamedResponse, json_response
from arraylstm_serve.sessions.commands import Caller
from arraylstm_serve.sessions.service import Service

RETRYABLE = (429, 503)

ADVANCE_ALL = Operation(
    method="POST",
    path="/v1/events",
    name="advance_all",
    summary="Tell many sessions the items they have just seen; a refused event does not affect the others.",
    answers={200: BulkAnswer},
    body=BulkRequest,
    problems=(
        INVALID_JSON,
        INVALID_REQUEST,
        PAYLOAD_TOO_LARGE,
        UNSUPPORTED_ENCODING,
        FOREIGN_ORIGIN,
        STOPPING,
        INTERNAL,
    ),
)


PART = 16
"""How many events of a chunk are begun at a time."""

CHUNK_ANSWERS = 4096
"""About the most predictions and observations in the answers to one chunk, which then have some 200 KB."""


def divide(service: Service, call: RequestHead, request: BulkRequest) -> list[list[BulkEvent]]:
    """Return the events in chunks to carry out one after the other, so that other requests get their turns between.

    Raises:
        Problem: `invalid_request`: there are too many events, they ask for too many predictions, or the request as a
            whole has an Idempotency-Key; `rate_limited`.
    """
    if call.idempotency_key() is not None:
        detail = "A bulk request has no Idempotency-Key header; give each event an idempotency_key."
        raise Problem(INVALID_REQUEST, detail)
    settings = service.settings
    limit = settings.max_events
    if len(request.events) > limit:
        detail = f"The request carries {len(request.events)} events; at most {limit} are allowed."
        raise Problem(INVALID_REQUEST, detail)
    num_items = len(service.model.vocabulary)
    wanted = sum(min(event.top_k, num_items) for event in request.events)
    if wanted > settings.max_predictions:
        detail = f"The events ask for {wanted} predictions; at most {settings.max_predictions} are allowed."
        raise Problem(INVALID_REQUEST, detail)
    service.rates.spend(call.client, len(request.events) - 1, after=1)
    size = min(service.bulk_share.size, settings.max_batch, settings.quota_pending or settings.max_pending)
    return list(_chunks(request.events, size, settings.max_session_pending, num_items))


async def advance_all(service: Service, call: RequestHead, chunks: list[list[BulkEvent]]) -> AsyncIterator[list[bytes]]:
    """Carry out chunks of events, one after the other, and yield the results of each."""
    held_back: dict[str, Problem] = {}
    caller = msgspec.structs.replace(call.caller(service.settings.request_timeout), held_back=held_back)
    for events in chunks:
        chunk = _Chunk(events, held_back)
        patience = caller.deadline - perf_counter()
        try:
            async with service.bulk_share.places(caller.client, len(events), patience):
                results = await chunk.advance(service, caller)
        except TimeoutError:
            results = chunk.refuse_all(late(), service, caller)
        yield results


def _chunks(events: Sequence[BulkEvent], size: int, of_a_session: int, num_items: int) -> Iterator[list[BulkEvent]]:
    """Split events, in their order, into chunks.

    A chunk has at most `size` events, at most `of_a_session` of any session, and at most about CHUNK_ANSWERS
    predictions and observations in its answers.
    """
    chunk: list[BulkEvent] = []
    counts: Counter[str] = Counter()
    answers = 0
    for event in events:
        if len(chunk) == size or counts[event.session_id] == of_a_session or answers >= CHUNK_ANSWERS:
            yield chunk
            chunk, counts, answers = [], Counter(), 0
        chunk.append(event)
        counts[event.session_id] += 1
        answers += len(event.items) + min(event.top_k, num_items)
    yield chunk


class _Chunk:
    """Events that are carried out together, and their results so far.

    Args:
        events: the events.
        held_back: the last retryable refusal of each session that has one; see `Caller`.
    """

    def __init__(self, events: Sequence[BulkEvent], held_back: dict[str, Problem]) -> None:
        self._events = events
        self._held_back = held_back
        self._results = [b""] * len(events)
        self._left = len(events)
        self._answered: Future[None] = get_running_loop().create_future()

    async def advance(self, service: Service, caller: Caller) -> list[bytes]:
        """Carry out the events, and return the answer or refusal of each."""
        for place, event in enumerate(self._events):
            if place and not place % PART:
                await service.heavy.turn(caller.client)
            reply = _Place(self, place)
            try:
                service.perform(advance(event.session_id, event.idempotency_key, event), caller, reply)
            except Problem as problem:
                reply.set_exception(problem)
        await self._answered
        return self._results

    def refuse_all(self, problem: Problem, service: Service, caller: Caller) -> list[bytes]:
        """Refuse all events before any of them has begun, and return the refusals."""
        for place in range(len(self._events)):
            service.refused_event(problem, caller.arrived)
            self.refuse(place, problem)
        return self._results

    def fill(self, place: int, result: bytes) -> None:
        """Store the result of the event at a place."""
        self._results[place] = result
        self._left -= 1
        if not self._left and not self._answered.done():
            self._answered.set_result(None)

    def refuse(self, place: int, problem: Problem) -> None:
        """Store the refusal of the event at a place."""
        if problem.kind.status in RETRYABLE or problem.kind is SESSION_REWOUND:
            self._held_back[self._events[place].session_id] = problem.with_traceback(None)
        self.fill(place, problem.body())


class _Place:
    """Takes the outcome of one event of a chunk; see `queue.Reply`."""

    __slots__ = ("_chunk", "_place")

    def __init__(self, chunk: _Chunk, place: int) -> None:
        self._chunk = chunk
        self._place = place

    def done(self) -> bool:
        """Return False: a chunk always waits for its outcomes."""
        return False

    def set_result(self, result: bytes, /) -> None:
        """Take the answer."""
        self._chunk.fill(self._place, result)

    def set_exception(self, exception: Problem, /) -> None:
        """Take the refusal."""
        self._chunk.refuse(self._place, exception)


_decoder = msgspec.json.Decoder(BulkRequest)


async def answer(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer POST /v1/events; if it has several chunks, send the results of each as soon as they are there."""
    chunks = divide(service, call, decode(_decoder, await read_body(service, call, request.receive)))
    results = advance_all(service, call, chunks)
    if len(chunks) > 1 and request.scope["http_version"] != "1.0":
        return StreamedResponse(_written(results))
    everything = [result async for some in results for result in some]
    return json_response(encode(BulkAnswer(list(map(Raw, everything)))))


async def _written(chunks: AsyncIterator[list[bytes]]) -> AsyncIterator[bytes]:
    """Write a BulkAnswer piece by piece."""
    before = b'{"results":['
    async for results in chunks:
        yield before + b",".join(results)
        before = b","
    yield b"]}"


ENDPOINT = Endpoint(ADVANCE_ALL, answer)
