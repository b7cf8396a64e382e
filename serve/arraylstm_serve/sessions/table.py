"""The table of sessions: it holds them, and decides which of them have to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable

from arraylstm_serve.counters import Counters, Eviction
from arraylstm_serve.sessions.session import Session


class Table:
    """Holds sessions by key.

    A session goes when it expires, or when there are too many sessions or remembered answers; the least recently used
    goes first. A session that has a turn is busy and stays. If more sessions are busy than the bounds allow, the table
    exceeds its bounds until one of them is idle; then `trim` lets it go.

    Args:
        counters: they count evictions.
        clock: returns seconds since the epoch, and never goes back.
        release: called to give back the slot of a session that has gone, or has moved to another slot.
        busy: the keys of sessions that have a turn.
        max_sessions: the most sessions to hold.
        ttl: seconds without use after which a session expires.
        max_answer_bytes: the most bytes of answers to remember.

    Attributes:
        answer_bytes: bytes of the answers that all sessions remember.
    """

    def __init__(
        self,
        counters: Counters,
        clock: Callable[[], float],
        release: Callable[[Session], None],
        busy: Container[str],
        *,
        max_sessions: int,
        ttl: float,
        max_answer_bytes: int,
    ) -> None:
        self.answer_bytes = 0
        self.clock = clock
        self._counters = counters
        self._release = release
        self._busy = busy
        self._ttl = ttl
        self._max_sessions = max_sessions
        self._max_answer_bytes = max_answer_bytes
        self._held: OrderedDict[str, Session] = OrderedDict()
        """The sessions that have begun. This dict and the next two are in order of last use, oldest first."""
        self._remembering: OrderedDict[str, None] = OrderedDict()
        """The keys of the sessions in `_held` that remember answers."""
        self._ended: OrderedDict[str, Session] = OrderedDict()
        """The sessions that have ended and still remember answers."""
        self._next_expiry = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key: str) -> Session:
        """Return the session as it stands; a session that is not in the table stands at step 0."""
        return self._held.get(key) or self._ended.get(key) or Session(key)

    def commit(self, before: Session, after: Session) -> None:
        """Replace the value of a session that `find` returned by its next value."""
        self.answer_bytes += after.answers.nbytes - before.answers.nbytes
        if before.slot != after.slot:
            self._release(before)
        if after.step:
            self._hold(after)
        else:
            self._forget(after.key)
            if after.answers.by_key:
                self._ended[after.key] = after
        self.trim()

    def touch(self, key: str) -> None:
        """Mark a session as used now, if it is held."""
        session = self._held.get(key)
        if session is not None:
            self._hold(session.used(self.clock()))

    def expire(self) -> None:
        """Let sessions go that nobody has used for `ttl` seconds."""
        now = self.clock()
        if now < self._next_expiry:
            return
        horizon = now - self._ttl
        while (oldest := self._oldest_idle(self._held)) is not None and self._held[oldest].last_used <= horizon:
            self._evict(oldest, "expired")
        while self._ended and next(iter(self._ended.values())).last_used <= horizon:
            self._drop_ended()
        first = [next(iter(sessions.values())).last_used for sessions in (self._held, self._ended) if sessions]
        self._next_expiry = min([now, *first]) + self._ttl

    def trim(self) -> None:
        """Let idle sessions go until the bounds are kept, or no idle session is left.

        If there are too many answers, ended sessions go first, then held sessions that remember answers.
        """
        while len(self._held) > self._max_sessions and (oldest := self._oldest_idle(self._held)) is not None:
            self._evict(oldest, "room")
        while self._ended and (len(self._ended) > self._max_sessions or self.answer_bytes > self._max_answer_bytes):
            self._drop_ended()
        while (
            self.answer_bytes > self._max_answer_bytes and (oldest := self._oldest_idle(self._remembering)) is not None
        ):
            self._evict(oldest, "answers")

    def _oldest_idle(self, keys: Iterable[str]) -> str | None:
        """Return the first of the keys whose session has no turn."""
        return next((key for key in keys if key not in self._busy), None)

    def _hold(self, session: Session) -> None:
        """Put a session into the table, as the most recently used one."""
        key = session.key
        self._ended.pop(key, None)
        self._held[key] = session
        self._held.move_to_end(key)
        if session.answers.by_key:
            self._remembering[key] = None
            self._remembering.move_to_end(key)

    def _forget(self, key: str) -> None:
        """Take a session out of the table."""
        self._held.pop(key, None)
        self._ended.pop(key, None)
        self._remembering.pop(key, None)

    def _evict(self, key: str, reason: Eviction) -> None:
        session = self._held[key]
        self._counters.evicted[reason] += 1
        self.answer_bytes -= session.answers.nbytes
        self._forget(key)
        self._release(session)

    def _drop_ended(self) -> None:
        _, session = self._ended.popitem(last=False)
        self.answer_bytes -= session.answers.nbytes
