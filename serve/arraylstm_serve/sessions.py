"""The table of sessions: who holds a slot, whose turn it is, and who has to make room."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from asyncio import Future
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from arraylstm_serve.admission import Gate
from arraylstm_serve.arena import Arena
from arraylstm_serve.batcher import Batcher, Walk
from arraylstm_serve.problems import (
    CAPACITY,
    IDEMPOTENCY_KEY_REUSED,
    UNKNOWN_SESSION,
    Problem,
    internal,
    retry_later,
    shown,
)
from arraylstm_serve.schemas import KEYS_REMEMBERED

Reply = TypeVar("Reply")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer that a request under an idempotency key got."""

    digest: bytes
    answer: bytes


@dataclass(slots=True, eq=False)
class Session:
    """A session that has consumed at least one item; times are seconds since the epoch."""

    id: str
    slot: int
    created: float
    last_used: float
    answers: dict[str, Remembered] = field(default_factory=dict)
    answer_bytes: int = 0

    def recall(self, key: str, digest: bytes) -> bytes | None:
        """The answer given under a key, if one was.

        Raises:
            Problem: `idempotency_key_reused`, where the key was sent with another request.
        """
        known = self.answers.get(key)
        if known is None:
            return None
        if known.digest != digest:
            detail = f"Idempotency-Key {shown(key)} was sent before with another body."
            raise Problem(IDEMPOTENCY_KEY_REUSED, detail, session_id=self.id)
        return known.answer

    def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        """Keep an answer, and forget the oldest beyond the last 16 keys."""
        self.answers[key] = Remembered(digest, answer)
        self.answer_bytes += len(answer)
        if len(self.answers) > KEYS_REMEMBERED:
            forgotten = self.answers.pop(next(iter(self.answers)))
            self.answer_bytes -= len(forgotten.answer)


class Turn(ABC, Generic[Reply]):
    """A request's place in its session's queue: it begins when the turn before it has ended.

    Attributes:
        session_id: whose queue.
        reply: resolved when the turn ends, whether or not anybody still waits for it.
    """

    def __init__(self, session_id: str, reply: Future[Reply]) -> None:
        self.session_id = session_id
        self.reply = reply

    @abstractmethod
    def begin(self, table: Sessions) -> Walk | None:
        """Start; a walk to take before the turn ends, or None where it has answered already.

        Raises:
            Problem: the turn is refused and has changed nothing.
        """

    def end(self, table: Sessions, walk: Walk) -> None:
        """Take over what the walk has done, and answer."""

    def undo(self, table: Sessions, walk: Walk) -> None:
        """Give back what `begin` took, the walk having failed."""

    def answer(self, reply: Reply) -> None:
        """Resolve the reply, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def refuse(self, problem: Problem) -> None:
        """Resolve the reply with a problem, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_exception(problem)


class Sessions:
    """Sessions by id, each with a first-in first-out queue of turns.

    A session is held from the end of its first event until it is removed, expires, or makes room.
    Only idle sessions, those without a turn, expire or make room, the least recently used first. While turns
    keep more sessions busy than the bounds allow, the bounds are exceeded; each session that goes idle mends it.

    Args:
        arena: where sessions have their slots.
        batcher: takes the turns' walks.
        gate: counts the turns that have not ended.
        clock: seconds since the epoch, never going back.
        max_sessions: how many sessions to hold; more make idle ones give room.
        ttl: seconds without use after which a session expires.
        max_answer_bytes: how many bytes of answers to remember; more make idle sessions give room.

    Attributes:
        answer_bytes: the answers remembered in all sessions.
    """

    def __init__(
        self,
        arena: Arena,
        batcher: Batcher,
        gate: Gate,
        clock: Callable[[], float],
        max_sessions: int,
        ttl: float,
        max_answer_bytes: int,
    ) -> None:
        self.arena = arena
        self.ttl = ttl
        self.answer_bytes = 0
        self._batcher = batcher
        self._gate = gate
        self._clock = clock
        self._max_sessions = max_sessions
        self._max_answer_bytes = max_answer_bytes
        self._held: dict[str, Session] = {}
        self._idle: OrderedDict[str, Session] = OrderedDict()
        self._queues: dict[str, deque[Turn[Any]]] = {}
        self._opening = 0

    def __len__(self) -> int:
        return len(self._held)

    def submit(self, turn: Turn[Reply]) -> Future[Reply]:
        """Queue a turn; the future is its reply.

        Raises:
            Problem: `overloaded`, where too many requests are pending.
        """
        self._gate.enter()
        self._expire()
        queue = self._queues.get(turn.session_id)
        if queue is None:
            self._idle.pop(turn.session_id, None)
            self._queues[turn.session_id] = deque([turn])
            self._proceed(turn.session_id)
        else:
            queue.append(turn)
        return turn.reply

    def find(self, session_id: str) -> Session | None:
        """The session, if it is held."""
        return self._held.get(session_id)

    def get(self, session_id: str) -> Session:
        """The session as it stands now; looking is not using it.

        Raises:
            Problem: `unknown_session`, where it is not held.
        """
        self._expire()
        session = self.find(session_id)
        if session is None:
            raise Problem(UNKNOWN_SESSION, f"Session {session_id} is not held.", session_id=session_id)
        return session

    def step(self, session: Session) -> int:
        """How many items the session has consumed."""
        return self.arena.steps.item(session.slot)

    def admit(self) -> None:
        """Let one more session begin; `open` makes room for it, `cancel` gives it up and nobody had to.

        Raises:
            Problem: `capacity`, where every session is busy.
        """
        if len(self._held) + self._opening - len(self._idle) >= self._max_sessions:
            raise retry_later(CAPACITY, f"All {self._max_sessions} sessions are busy.")
        self._opening += 1

    def cancel(self) -> None:
        """Give up a session that was admitted."""
        self._opening -= 1

    def open(self, session_id: str, slot: int) -> Session:
        """Hold a session that was admitted, with the state that its slot has."""
        self._opening -= 1
        now = self._clock()
        session = self._held[session_id] = Session(session_id, slot, created=now, last_used=now)
        self._trim()
        return session

    def remember(self, session: Session, key: str, digest: bytes, answer: bytes) -> None:
        """Keep the answer that a session gave under a key."""
        self.answer_bytes -= session.answer_bytes
        session.remember(key, digest, answer)
        self.answer_bytes += session.answer_bytes
        self._trim()

    def close(self, session_id: str) -> None:
        """Hold a session no longer."""
        self._idle.pop(session_id, None)
        session = self._held.pop(session_id)
        self.answer_bytes -= session.answer_bytes
        self.arena.release(session.slot)

    def _trim(self) -> None:
        """Close the least recently used idle sessions until the bounds are kept."""
        while self._idle and self._beyond_bounds:
            self.close(next(iter(self._idle)))

    @property
    def _beyond_bounds(self) -> bool:
        return len(self._held) > self._max_sessions or self.answer_bytes > self._max_answer_bytes

    def _expire(self) -> None:
        horizon = self._clock() - self.ttl
        while self._idle:
            oldest = next(iter(self._idle.values()))
            if oldest.last_used > horizon:
                return
            self.close(oldest.id)

    def _proceed(self, session_id: str) -> None:
        """Begin the turns of a queue until one has to wait for its walk, or none is left."""
        queue = self._queues[session_id]
        while queue:
            walk = self._begin(queue[0])
            if walk is not None:
                self._batcher.submit(walk, partial(self._finish, queue[0]))
                return
            queue.popleft()
            self._gate.leave()
        del self._queues[session_id]
        self._rest(session_id)

    def _begin(self, turn: Turn[Any]) -> Walk | None:
        try:
            return turn.begin(self)
        except Problem as problem:
            turn.refuse(problem)
        except Exception:
            logger.exception("a turn of session %s could not begin", turn.session_id)
            turn.refuse(internal())
        return None

    def _finish(self, turn: Turn[Any], walk: Walk, error: Exception | None) -> None:
        try:
            if error is None:
                turn.end(self, walk)
            else:
                turn.undo(self, walk)
                turn.refuse(internal())
        except Exception:
            logger.exception("a turn of session %s could not end", turn.session_id)
            turn.refuse(internal())
        self._queues[turn.session_id].popleft()
        self._gate.leave()
        self._proceed(turn.session_id)

    def _rest(self, session_id: str) -> None:
        session = self._held.get(session_id)
        if session is not None:
            session.last_used = self._clock()
            self._idle[session_id] = session
            self._trim()
