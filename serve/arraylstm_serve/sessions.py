"""The table of sessions: who holds a slot, whose turn it is, and who has to make room."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from arraylstm_serve.admission import Gate
from arraylstm_serve.arena import Arena
from arraylstm_serve.batcher import Batcher, LateError, Walk
from arraylstm_serve.figures import Eviction, Figures
from arraylstm_serve.problems import (
    CAPACITY,
    SESSION_BUSY,
    UNKNOWN_SESSION,
    Problem,
    internal,
    late,
    plain_id,
    retry_later,
)
from arraylstm_serve.records import Answers

Value = TypeVar("Value")
Given = TypeVar("Given", contravariant=True)

logger = logging.getLogger(__name__)


class Reply(Protocol[Given]):
    """Where the outcome of a turn goes; asyncio's futures are such."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Given, /) -> None:
        """Take the answer."""

    def set_exception(self, exception: Problem, /) -> None:
        """Take the refusal."""


@dataclass(slots=True, eq=False)
class Session:
    """A session that has consumed at least one item; times are seconds since the epoch.

    Attributes:
        key: its name within the server, `NAMESPACE/ID` where keys divide sessions into namespaces.
        slot: where the arena has it.
        restored: whether its state was given to it, and no event has been answered since.
    """

    key: str
    slot: int
    created: float
    last_used: float
    restored: bool = False


class Ended(NamedTuple):
    """What outlives a session that was ended by a request: answers, so that a retry gets them again."""

    answers: Answers
    at: float


class Turn(ABC, Generic[Value]):
    """A request's place in its session's queue: it begins when the turn before it has ended.

    Args:
        key: whose queue.
        reply: resolved when the turn ends, whether or not anybody still waits for it.
        arrived: when the request came, by perf_counter.
        deadline: by perf_counter, after which the turn is refused and changes nothing.
    """

    __slots__ = ("arrived", "deadline", "key", "reply", "table")

    table: Sessions
    """Where the turn was submitted."""

    def __init__(self, key: str, reply: Reply[Value], arrived: float, deadline: float) -> None:
        self.key = key
        self.reply = reply
        self.arrived = arrived
        self.deadline = deadline

    @abstractmethod
    def begin(self) -> Walk | None:
        """Start; a walk to take before the turn ends, or None where it has answered already.

        Raises:
            Problem: the turn is refused and has changed nothing.
        """

    def end(self, walk: Walk) -> None:
        """Take over what the walk has done, and answer."""

    def undo(self, walk: Walk) -> None:
        """Give back what `begin` took, the walk having failed."""

    def walked(self, walk: Walk, error: Exception | None) -> None:
        """See `batcher.Walker`."""
        self.table.finish(self, walk, error)

    def answer(self, value: Value) -> None:
        """Resolve the reply, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_result(value)

    def refuse(self, problem: Problem) -> None:
        """Resolve the reply with a problem, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_exception(problem)


def refusal(error: Exception) -> Problem:
    """What a client is told of a walk that went wrong."""
    return late() if isinstance(error, LateError) else internal()


class Sessions:
    """Sessions by key, each with a first-in first-out queue of turns.

    A session is held from the end of its first event until it is removed, ends, expires, or makes room.
    Only idle sessions, those without a turn, expire or make room, the least recently used first. While turns
    keep more sessions busy than the bounds allow, the bounds are exceeded; each session that goes idle mends it.

    Args:
        arena: where sessions have their slots.
        batcher: takes the turns' walks.
        gate: counts the turns that have not ended.
        figures: told of evictions.
        clock: seconds since the epoch, never going back.
        max_sessions: how many sessions to hold; more make idle ones give room.
        ttl: seconds without use after which a session expires.
        max_answer_bytes: how many bytes of answers to remember; more make idle sessions give room.
        max_turns: how many turns may queue for one session.

    Attributes:
        answer_bytes: the answers remembered in all sessions.
    """

    def __init__(
        self,
        arena: Arena,
        batcher: Batcher,
        gate: Gate,
        figures: Figures,
        clock: Callable[[], float],
        *,
        max_sessions: int,
        ttl: float,
        max_answer_bytes: int,
        max_turns: int,
    ) -> None:
        self.arena = arena
        self.figures = figures
        self.answer_bytes = 0
        self.clock = clock
        self._ttl = ttl
        self._batcher = batcher
        self._gate = gate
        self._max_sessions = max_sessions
        self._max_answer_bytes = max_answer_bytes
        self._max_turns = max_turns
        self._held: dict[str, Session] = {}
        self._idle: OrderedDict[str, Session] = OrderedDict()
        self._remembering: OrderedDict[str, Session] = OrderedDict()
        """The idle ones that remember answers."""
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._queues: dict[str, deque[Turn[Any]]] = {}
        self._opening = 0
        self._next_expiry = 0.0

    def __len__(self) -> int:
        self._expire()
        return len(self._held)

    def submit(self, turn: Turn[Any]) -> None:
        """Queue a turn.

        Raises:
            Problem: `overloaded` or `session_busy`, where too many requests are pending, at all or for this session.
        """
        self._expire()
        queue = self._queues.get(turn.key)
        if queue is not None and len(queue) >= self._max_turns:
            detail = f"{self._max_turns} requests are pending for session {plain_id(turn.key)}, as many as are allowed."
            raise retry_later(SESSION_BUSY, detail, session_id=plain_id(turn.key))
        self._gate.enter()
        turn.table = self
        if queue is None:
            self._rouse(turn.key)
            queue = self._queues[turn.key] = deque((turn,))
            self._proceed(turn.key, queue)
        else:
            queue.append(turn)

    def find(self, key: str) -> Session | None:
        """The session, if it is held."""
        return self._held.get(key)

    def get(self, key: str) -> Session:
        """The session as it stands now; looking is not using it.

        Raises:
            Problem: `unknown_session`, where it is not held.
        """
        self._expire()
        session = self._held.get(key)
        if session is None:
            session_id = plain_id(key)
            raise Problem(UNKNOWN_SESSION, f"Session {session_id} is not held.", session_id=session_id)
        return session

    def answers(self, key: str) -> Answers | None:
        """What was answered under the idempotency keys of a session that is held or has ended."""
        session = self._held.get(key)
        if session is not None:
            return self.arena.answers.get(session.slot)
        ended = self._ended.get(key)
        return None if ended is None else ended.answers

    def step(self, session: Session) -> int:
        """How many items the session has consumed."""
        return self.arena.steps.item(session.slot)

    def admit(self) -> int:
        """Let one more session begin, in the slot returned; `open` makes room for it, `cancel` gives it up.

        Raises:
            Problem: `capacity`, where every session is busy.
        """
        if len(self._held) + self._opening - len(self._idle) >= self._max_sessions:
            raise retry_later(CAPACITY, f"All {self._max_sessions} sessions are busy.")
        slot = self.arena.acquire()
        self._opening += 1
        return slot

    def cancel(self, slot: int) -> None:
        """Give up a session that was admitted."""
        self._opening -= 1
        self.arena.release(slot)

    def open(self, key: str, slot: int) -> Session:
        """Hold a session that was admitted, with the state that its slot has."""
        self._opening -= 1
        now = self.clock()
        session = self._held[key] = Session(key, slot, created=now, last_used=now)
        ended = self._ended.pop(key, None)
        if ended is not None:
            self.arena.answers[slot] = ended.answers
        self._trim()
        return session

    def remember(self, session: Session, key: str, digest: bytes, answer: bytes) -> None:
        """Keep the answer that a session gave under an idempotency key."""
        answers = self.arena.answers.setdefault(session.slot, Answers())
        self.answer_bytes += answers.remember(key, digest, answer)
        self._trim()

    def erase(self, session: Session) -> None:
        """Forget what a session answered."""
        self._forget(self.arena.answers.pop(session.slot, None))

    def end(self, session: Session) -> None:
        """Hold a session no longer, but what it answered."""
        answers = self.arena.answers.pop(session.slot, None)
        self.close(session)
        if answers is not None:  # still counted in answer_bytes
            self._ended[session.key] = Ended(answers, self.clock())
            self._trim()

    def close(self, session: Session) -> None:
        """Hold a session no longer."""
        self._rouse(session.key)
        del self._held[session.key]
        self._forget(self.arena.answers.get(session.slot))
        self.arena.release(session.slot)

    def finish(self, turn: Turn[Any], walk: Walk, error: Exception | None) -> None:
        """End the turn at the head of its queue, and begin the next one."""
        try:
            if error is None:
                turn.end(walk)
            else:
                turn.undo(walk)
                turn.refuse(refusal(error))
        except Exception:
            logger.exception("a turn of session %s could not end", turn.key)
            turn.refuse(internal())
        queue = self._queues[turn.key]
        queue.popleft()
        self._gate.leave()
        self._proceed(turn.key, queue)

    def _proceed(self, key: str, queue: deque[Turn[Any]]) -> None:
        """Begin the turns of a queue until one has to wait for its walk, or none is left."""
        while queue:
            walk = self._begin(queue[0])
            if walk is not None:
                self._batcher.submit(walk)
                return
            queue.popleft()
            self._gate.leave()
        del self._queues[key]
        session = self._held.get(key)
        if session is not None:
            session.last_used = self.clock()
            self._idle[key] = session
            if session.slot in self.arena.answers:
                self._remembering[key] = session
            self._trim()

    def _rouse(self, key: str) -> None:
        """Count a session among the idle ones no longer."""
        if self._idle.pop(key, None) is not None:
            self._remembering.pop(key, None)

    def _begin(self, turn: Turn[Any]) -> Walk | None:
        if turn.deadline < perf_counter():
            turn.refuse(late())
            return None
        try:
            return turn.begin()
        except Problem as problem:
            turn.refuse(problem)
        except Exception:
            logger.exception("a turn of session %s could not begin", turn.key)
            turn.refuse(internal())
        return None

    def _trim(self) -> None:
        """Give up ended and then idle sessions, the least recently used first, until the bounds are kept.

        For answers only such sessions make room as remember some.
        """
        while len(self._held) > self._max_sessions and self._idle:
            self._evict(next(iter(self._idle.values())), "room")
        while len(self._ended) > self._max_sessions or (self._ended and self.answer_bytes > self._max_answer_bytes):
            self._forget(self._ended.popitem(last=False)[1].answers)
        while self.answer_bytes > self._max_answer_bytes and self._remembering:
            self._evict(next(iter(self._remembering.values())), "room")

    def _expire(self) -> None:
        """Give up what nobody has used for its time. Whatever goes idle from now on expires after `_next_expiry`."""
        now = self.clock()
        if now < self._next_expiry:
            return
        horizon = now - self._ttl
        while self._idle and (oldest := next(iter(self._idle.values()))).last_used <= horizon:
            self._evict(oldest, "expired")
        while self._ended and next(iter(self._ended.values())).at <= horizon:
            self._forget(self._ended.popitem(last=False)[1].answers)
        oldest_idle = next((session.last_used for session in self._idle.values()), now)
        oldest_ended = next((ended.at for ended in self._ended.values()), now)
        self._next_expiry = min(oldest_idle, oldest_ended) + self._ttl

    def _evict(self, session: Session, reason: Eviction) -> None:
        self.figures.evicted[reason] += 1
        self.close(session)

    def _forget(self, answers: Answers | None) -> None:
        if answers is not None:
            self.answer_bytes -= answers.nbytes
