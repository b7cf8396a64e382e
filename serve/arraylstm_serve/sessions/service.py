"""The service: everything one server process consists of, and what can be asked of it."""

from __future__ import annotations

import time
from asyncio import Future, get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

from arraylstm_serve import __version__
from arraylstm_serve.api.problems import INVALID_REQUEST, Problem
from arraylstm_serve.api.schemas import EventsRequest, Item, PredictRequest, SessionInfo, Stats, encode
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.counters import Figures
from arraylstm_serve.engine.base import Engine, row_bytes
from arraylstm_serve.engine.batcher import Batcher, Walk
from arraylstm_serve.engine.ranking import Ask
from arraylstm_serve.engine.slots import Arena
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.request import Call
from arraylstm_serve.sessions import state_file as statefile
from arraylstm_serve.sessions.commands import Advance, IdempotencyKey, Outcome, Peek, Remove, Render, Restore, Save
from arraylstm_serve.sessions.limits import Gate, Share
from arraylstm_serve.sessions.queue import Queues, Reply, refusal
from arraylstm_serve.sessions.rendering import Renderer
from arraylstm_serve.sessions.session import Record
from arraylstm_serve.sessions.table import Session, Sessions
from arraylstm_serve.settings import Settings

Clock = Callable[[], float]


def steady_clock() -> Clock:
    """A clock that reads seconds since the epoch but never jumps, whatever happens to the machine's time."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


class Service:
    """Sessions over one model; the methods are called from the event loop.

    Args:
        bundle: the model, verified.
        engine: has a row for each of `slots(settings)`.
        settings: the bounds.
        keys: the API keys to ask for, if any.
        clock: seconds since the epoch, never going back.

    Attributes:
        bulk_share: what bulk requests may have of the places of pending requests.
        draining: set once the server is on its way out.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        settings: Settings,
        keys: Keys | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.bundle = bundle
        self.settings = settings
        self.keys = keys
        self.draining = False
        self.figures = Figures()
        self.arena = Arena(engine, slots(settings))
        self.vocabulary = bundle.vocabulary if settings.unknown_items == "model" else bundle.vocabulary.strict()
        self._clock = clock or steady_clock()
        self._began = self._clock()
        self._gate = Gate(settings.max_pending)
        self.bulk_share = Share(settings.max_pending)
        self._batcher = Batcher(self.arena, self.figures, settings.max_batch)
        self._renderer = Renderer(bundle.fingerprint, bundle.vocabulary.labels)
        self.sessions = Sessions(
            self.arena,
            self.figures,
            self._clock,
            max_sessions=settings.max_sessions,
            ttl=settings.session_ttl,
            max_answer_bytes=settings.max_answer_bytes,
        )
        self._queues = Queues(self.sessions, self._batcher, self._gate, settings.max_session_pending)

    @property
    def memory_bound(self) -> int:
        """Bytes that the states of sessions and their remembered answers are bound to."""
        return self.arena.nbytes + self.settings.max_answer_bytes

    @property
    def largest_state(self) -> int:
        """Bytes that the file of a session's state can have at most."""
        return row_bytes(self.arena.engine.shapes) + statefile.OVERHEAD

    @property
    def pending(self) -> int:
        """How many requests wait or run."""
        return self._gate.inside

    def advance(
        self, call: Call, session_id: str, request: EventsRequest, idempotency_key: str | None, reply: Reply[bytes]
    ) -> None:
        """Consume a request's items; the reply is an encoded SessionAnswer.

        Raises:
            Problem: the request is refused; the reply may get further ones.
        """
        items = self.encode(request.items)
        ask = self._ask(request.top_k, request.exclude)
        self._queues.submit(
            Advance(
                call.session_key(session_id),
                reply,
                call.arrived,
                self._deadline(call),
                items=items,
                ask=ask,
                render=partial(self._renderer.session, session_id, request.items, ask),
                expected_step=request.expected_step,
                idempotency=IdempotencyKey.of(idempotency_key, "advance", _asked(request)),
                end=request.end,
            )
        )

    def peek(self, call: Call, session_id: str, top_k: int) -> Awaitable[bytes]:
        """A session's predictions, the state unmoved; the reply is an encoded SessionAnswer.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        ask = self._ask(top_k)
        return self.submit(Peek, call, session_id, ask=ask, render=partial(self._renderer.session, session_id, (), ask))

    def remove(self, call: Call, session_id: str) -> Awaitable[bytes]:
        """Forget a session; the reply is empty.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        return self.submit(
            Remove, call, session_id, idempotency=IdempotencyKey.of(call.idempotency_key(), "remove", None)
        )

    async def save(self, call: Call, session_id: str) -> bytes:
        """A session's state as a safetensors file.

        Raises:
            Problem: `unknown_session`, or the request is refused.
        """
        record: Record = await self.submit(Save, call, session_id)
        return statefile.dump(record, self.bundle.fingerprint)

    def restore(self, call: Call, session_id: str, body: bytes) -> Awaitable[bytes]:
        """Give a session the state in a safetensors file; the reply is an encoded SessionInfo.

        Raises:
            Problem: `model_mismatch`, `invalid_state`, or the request is refused; the reply may raise further ones.
        """
        record = statefile.parse(body, self.bundle.fingerprint, self.arena.engine.shapes)
        return self.submit(
            Restore,
            call,
            session_id,
            record=record,
            render=partial(self._info, session_id),
            idempotency=IdempotencyKey.of(call.idempotency_key(), "restore", body),
        )

    def inspect(self, call: Call, session_id: str) -> bytes:
        """An encoded SessionInfo of the session as it stands now.

        Raises:
            Problem: `unknown_session`.
        """
        return self._info(session_id, self.sessions.get(call.session_key(session_id)))

    def predict(self, call: Call, request: PredictRequest) -> Awaitable[bytes]:
        """Walk a history without a session; the reply is an encoded PredictAnswer.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        items = self.encode(request.items)
        ask = self._ask(request.top_k, request.exclude)
        return self.stroll(call, items, ask, partial(self._renderer.prediction, request.items, ask))

    def stroll(self, call: Call, items: Sequence[int], ask: Ask, render: Render) -> Awaitable[bytes]:
        """Walk item ids without a session; the reply is the rendered outcome.

        Raises:
            Problem: `overloaded`; the reply may raise further ones.
        """
        self._gate.enter()
        reply: Future[bytes] = get_running_loop().create_future()
        stroll = _Stroll(self.arena, self._gate, reply, render)
        slot = self.arena.acquire()
        self._batcher.submit(Walk(stroll, slot, items, ask.reach, call.arrived, self._deadline(call)))
        return reply

    def stats(self) -> bytes:
        """Encoded Stats of now."""
        figures, settings = self.figures, self.settings
        return encode(
            Stats(
                version=__version__,
                model=self.bundle.fingerprint,
                cell=self.bundle.manifest.model.cell,
                num_items=len(self.vocabulary),
                provider=self.arena.engine.provider,
                uptime_seconds=self._clock() - self._began,
                draining=self.draining,
                sessions=len(self.sessions),
                max_sessions=settings.max_sessions,
                pending=self.pending,
                requests_total=figures.requests.total(),
                events_total=figures.events,
                batches_total=figures.batch_rows.count,
                steps_total=int(figures.batch_rows.total),
                busy_seconds_total=figures.run_seconds.total,
                replays_total=figures.replays,
                conflicts_total=figures.conflicts,
                evicted=figures.evicted,
            )
        )

    def encode(self, items: Sequence[Item]) -> list[int]:
        """The ids of a request's items.

        Raises:
            Problem: `invalid_request` for too many, `unknown_item`.
        """
        self.check_count(len(items))
        return self.vocabulary.encode(items)

    def patience(self, call: Call) -> float:
        """Seconds that a request may still wait."""
        return self._deadline(call) - perf_counter()

    def check_count(self, count: int) -> None:
        """Raise Problem `invalid_request` where a request carries more items than are allowed."""
        limit = self.settings.max_items
        if count > limit:
            raise Problem(INVALID_REQUEST, f"The request carries {count} items; at most {limit} are allowed.")

    def submit(self, turn: Callable[..., Any], call: Call, session_id: str, **wanted: Any) -> Awaitable[Any]:
        """Queue a turn of a session, made with what is wanted of it; the reply is the turn's.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        reply: Future[Any] = get_running_loop().create_future()
        key = call.session_key(session_id)
        self._queues.submit(turn(key, reply, call.arrived, self._deadline(call), **wanted))
        return reply

    def _deadline(self, call: Call) -> float:
        return call.arrived + self.settings.request_timeout

    def _ask(self, top_k: int, exclude: Sequence[Item] = ()) -> Ask:
        if not exclude:
            return Ask.of(top_k, len(self.vocabulary))
        return Ask.of(top_k, len(self.vocabulary), frozenset(self.vocabulary.encode_known(exclude)))

    def _info(self, session_id: str, session: Session) -> bytes:
        return encode(
            SessionInfo(
                session_id=session_id,
                step=self.sessions.step(session),
                model=self.bundle.fingerprint,
                created_at=_time(session.created),
                last_used_at=_time(session.last_used),
                expires_at=_time(session.last_used + self.settings.session_ttl),
                recent=[self.vocabulary.labels[item] for item in self.arena.recent(session.slot).tolist()],
            )
        )


class _Stroll:
    """A walk of nobody's session."""

    def __init__(self, arena: Arena, gate: Gate, reply: Future[bytes], render: Render) -> None:
        self._arena = arena
        self._gate = gate
        self._reply = reply
        self._render = render

    def walked(self, walk: Walk, error: Exception | None) -> None:
        """See `batcher.Walker`."""
        try:
            if self._reply.done():
                return
            if error is None:
                self._reply.set_result(self._render(Outcome(walk.slot, walk.position, "new", walk.seen, walk.ranking)))
            else:
                self._reply.set_exception(refusal(error))
        finally:
            self._arena.release(walk.slot)
            self._gate.leave()


def slots(settings: Settings) -> int:
    """A slot for each session, and two for each pending request: to walk on, and to open a session in."""
    return settings.max_sessions + 2 * settings.max_pending


def _asked(request: EventsRequest) -> tuple[Any, ...]:
    """What a request asks for, whichever way it came."""
    return request.items, request.top_k, request.expected_step, request.exclude, request.end


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
