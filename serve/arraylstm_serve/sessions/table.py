"""The table of sessions: who holds a slot, and who has to make room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from arraylstm_serve.api.problems import CAPACITY, UNKNOWN_SESSION, Problem, plain_id, retry_later
from arraylstm_serve.counters import Eviction, Figures
from arraylstm_serve.engine.slots import Arena
from arraylstm_serve.sessions.session import Answers


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


class Sessions:
    """Sessions by key.

    A session is held from the end of its first event until it is removed, ends, expires, or makes room.
    Only idle sessions, those without a turn, expire or make room, the least recently used first. While turns
    keep more sessions busy than the bounds allow, the bounds are exceeded; each session that goes idle mends it.

    Args:
        arena: where sessions have their slots.
        figures: told of evictions.
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
        figures: Figures,
        clock: Callable[[], float],
        *,
        max_sessions: int,
        ttl: float,
        max_answer_bytes: int,
    ) -> None:
        self.arena = arena
        self.figures = figures
        self.answer_bytes = 0
        self.clock = clock
        self._ttl = ttl
        self._max_sessions = max_sessions
        self._max_answer_bytes = max_answer_bytes
        self._held: dict[str, Session] = {}
        self._idle: OrderedDict[str, Session] = OrderedDict()
        self._remembering: OrderedDict[str, Session] = OrderedDict()
        """The idle ones that remember answers."""
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._opening = 0
        self._next_expiry = 0.0

    def __len__(self) -> int:
        self.expire()
        return len(self._held)

    def rouse(self, key: str) -> None:
        """Count a session among the idle ones no longer."""
        if self._idle.pop(key, None) is not None:
            self._remembering.pop(key, None)

    def rest(self, key: str) -> None:
        """Count a session, if it is held, among the idle ones, as the one used last."""
        session = self._held.get(key)
        if session is not None:
            session.last_used = self.clock()
            self._idle[key] = session
            if session.slot in self.arena.answers:
                self._remembering[key] = session
            self._trim()

    def expire(self) -> None:
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

    def find(self, key: str) -> Session | None:
        """The session, if it is held."""
        return self._held.get(key)

    def get(self, key: str) -> Session:
        """The session as it stands now; looking is not using it.

        Raises:
            Problem: `unknown_session`, where it is not held.
        """
        self.expire()
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
        self.rouse(session.key)
        del self._held[session.key]
        self._forget(self.arena.answers.get(session.slot))
        self.arena.release(session.slot)

    def _trim(self) -> None:
        """Give up ended and then idle sessions, the least recently used first, until the bounds are kept.

        For answers only such sessions make room as remember some.
        """
        while len(self._held) > self._max_sessions and self._idle:
            self._evict(next(iter(self._idle.values())), "room")
        while len(self._ended) > self._max_sessions or (self._ended and self.answer_bytes > self._max_answer_bytes):
            self._forget(self._ended.popitem(last=False)[1].answers)
        while self.answer_bytes > self._max_answer_bytes and self._remembering:
            self._evict(next(iter(self._remembering.values())), "answers")

    def _evict(self, session: Session, reason: Eviction) -> None:
        self.figures.evicted[reason] += 1
        self.close(session)

    def _forget(self, answers: Answers | None) -> None:
        if answers is not None:
            self.answer_bytes -= answers.nbytes
