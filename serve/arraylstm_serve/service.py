"""The service: everything one server process consists of, and what can be asked of it."""

from __future__ import annotations

import hashlib
import time
from asyncio import Future, get_running_loop
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from arraylstm_serve.admission import Gate
from arraylstm_serve.arena import Arena
from arraylstm_serve.batcher import Batcher, Seen, Stepper, Walk
from arraylstm_serve.bundle import Bundle
from arraylstm_serve.errors import StartupError
from arraylstm_serve.memory import memory_limit
from arraylstm_serve.predictions import Ask, Ranking
from arraylstm_serve.problems import INVALID_REQUEST, Problem, internal
from arraylstm_serve.schemas import (
    EventsRequest,
    Item,
    Observation,
    PredictAnswer,
    Prediction,
    PredictRequest,
    SessionAnswer,
    SessionInfo,
    encode,
)
from arraylstm_serve.sessions import Sessions
from arraylstm_serve.settings import Settings
from arraylstm_serve.turns import Advance, IdempotencyKey, Outcome, Peek, Remove

Clock = Callable[[], float]


def steady_clock() -> Clock:
    """A clock that reads seconds since the epoch but never jumps, whatever happens to the machine's time."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


class Service:
    """Sessions over one model; the methods that answer are called from the event loop.

    Args:
        bundle: the model, verified.
        engine: runs its step graph.
        settings: the bounds.
        clock: seconds since the epoch, never going back.

    Attributes:
        draining: set once the server is on its way out.

    Raises:
        StartupError: the machine cannot hold that many sessions.
    """

    def __init__(self, bundle: Bundle, engine: Stepper, settings: Settings, clock: Clock | None = None) -> None:
        self.bundle = bundle
        self.settings = settings
        self.draining = False
        self.arena = _allocate(bundle, settings)
        self._gate = Gate(settings.max_pending)
        self._batcher = Batcher(engine, self.arena, settings.max_batch)
        self.sessions = Sessions(
            self.arena,
            self._batcher,
            self._gate,
            clock or steady_clock(),
            settings.max_sessions,
            settings.session_ttl,
            settings.max_answer_bytes,
        )

    @property
    def memory_bound(self) -> int:
        """Bytes that the states of sessions and their remembered answers are bound to."""
        return self.arena.nbytes + self.settings.max_answer_bytes

    @property
    def pending(self) -> int:
        """How many requests wait or run."""
        return self._gate.inside

    def advance(self, session_id: str, request: EventsRequest, key: str | None) -> Future[bytes]:
        """Consume a request's items; the reply is an encoded SessionAnswer.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        ask = self._ask(request.top_k, request.exclude)
        turn = Advance(
            session_id,
            get_running_loop().create_future(),
            items=self._ids(request.items),
            ask=ask,
            expected_step=request.expected_step,
            key=None if key is None else IdempotencyKey(key, hashlib.sha256(encode(request)).digest()),
            render=lambda outcome: self._render(session_id, request.items, ask, outcome),
        )
        return self.sessions.submit(turn)

    def peek(self, session_id: str, top_k: int) -> Future[bytes]:
        """A session's predictions, the state unmoved; the reply is an encoded SessionAnswer.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        ask = Ask(top_k)
        turn = Peek(
            session_id,
            get_running_loop().create_future(),
            ask=ask,
            render=lambda outcome: self._render(session_id, (), ask, outcome),
        )
        return self.sessions.submit(turn)

    def remove(self, session_id: str) -> Future[None]:
        """Forget a session.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        return self.sessions.submit(Remove(session_id, get_running_loop().create_future()))

    def inspect(self, session_id: str) -> bytes:
        """An encoded SessionInfo of the session as it stands now.

        Raises:
            Problem: `unknown_session`.
        """
        session = self.sessions.get(session_id)
        return encode(
            SessionInfo(
                session_id=session_id,
                step=self.sessions.step(session),
                model=self.bundle.fingerprint,
                created_at=_time(session.created),
                last_used_at=_time(session.last_used),
                expires_at=_time(session.last_used + self.settings.session_ttl),
            )
        )

    def predict(self, request: PredictRequest) -> Future[bytes]:
        """Walk a history without a session; the reply is an encoded PredictAnswer.

        Raises:
            Problem: the request is refused; the reply may raise further ones.
        """
        ask = self._ask(request.top_k, request.exclude)
        items = self._ids(request.items)
        reply: Future[bytes] = get_running_loop().create_future()

        def finish(walk: Walk, error: Exception | None) -> None:
            self.arena.release(walk.slot)
            self._gate.leave()
            if reply.done():
                return
            if error is None:
                observed = _observed(request.items, walk.seen)
                predictions = self._predictions(ask, walk.ranking)
                reply.set_result(encode(PredictAnswer(self.bundle.fingerprint, predictions, observed)))
            else:
                reply.set_exception(internal())

        self._gate.enter()
        self._batcher.submit(Walk(self.arena.acquire(), items, ask.reach(self._num_items)), finish)
        return reply

    @property
    def _num_items(self) -> int:
        return len(self.bundle.vocabulary)

    def _ids(self, items: Sequence[Item]) -> list[int]:
        limit = self.settings.max_items
        if len(items) > limit:
            raise Problem(INVALID_REQUEST, f"The request carries {len(items)} items; at most {limit} are allowed.")
        return self.bundle.vocabulary.encode(items)

    def _ask(self, top_k: int, exclude: Sequence[Item]) -> Ask:
        return Ask(top_k, frozenset(self.bundle.vocabulary.encode_known(exclude)))

    def _render(self, session_id: str, items: Sequence[Item], ask: Ask, outcome: Outcome) -> bytes:
        return encode(
            SessionAnswer(
                session_id=session_id,
                step=outcome.step,
                state=outcome.state,
                model=self.bundle.fingerprint,
                predictions=self._predictions(ask, outcome.ranking),
                observed=_observed(items, outcome.seen),
            )
        )

    def _predictions(self, ask: Ask, ranking: Ranking) -> list[Prediction]:
        labels = self.bundle.vocabulary.labels
        return [Prediction(labels[index], probability) for index, probability in ask.choose(ranking)]


def _allocate(bundle: Bundle, settings: Settings) -> Arena:
    """A slot for each session, and two for each pending request: to walk on, and to open a session in."""
    slots = settings.max_sessions + 2 * settings.max_pending
    states, num_items = bundle.manifest.states, len(bundle.vocabulary)
    needed = slots * Arena(1, states, num_items).nbytes + settings.max_answer_bytes
    if needed > memory_limit():
        raise _too_large(settings, needed)
    try:
        return Arena(slots, states, num_items)
    except MemoryError as error:
        raise _too_large(settings, needed) from error


def _too_large(settings: Settings, needed: int) -> StartupError:
    return StartupError(
        f"{settings.max_sessions} sessions need {needed / 1e6:.1f} MB for states and remembered answers, but there are "
        f"{memory_limit() / 1e6:.1f} MB; lower --max-sessions or --max-answer-bytes."
    )


def _observed(items: Sequence[Item], seen: Sequence[Seen]) -> list[Observation]:
    return [Observation(item, *thought) for item, thought in zip(items, seen, strict=True)]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
