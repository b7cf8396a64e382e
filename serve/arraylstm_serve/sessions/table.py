"""The table of sessions: it holds them, and decides which of them have to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from arraylstm_serve.counters import Counters, Eviction
from arraylstm_serve.fairness import Holdings
from arraylstm_serve.sessions.session import Session


class Owned(NamedTuple):
    """The keys of an owner's sessions, the least recently used first.

    Attributes:
        held: those that have begun.
        remembering: those of them that remember answers.
        ended: those that have ended and still remember answers.
    """

    held: OrderedDict[str, None]
    remembering: OrderedDict[str, None]
    ended: OrderedDict[str, None]


NOTHING_OWNED = Owned(OrderedDict(), OrderedDict(), OrderedDict())


class Table:
    """Holds sessions by key.

    A session goes when it expires, or when there are too many sessions or remembered answers. Then the owner that holds
    most loses first, its least recently used session before the others: so nobody's sessions go for those of another
    that holds more. A session that has a turn is busy and stays. While all sessions of that owner are busy, the table
    exceeds its bounds, by no more sessions than are busy; once one of them is idle, `trim` lets it go.

    Args:
        counters: they count evictions.
        clock: returns seconds since the epoch, and never goes back.
        release: called to give back the slot of a session that has gone, or has moved to another slot.
        busy: the keys of sessions that have to stay: those that have a turn.
        max_sessions: the most sessions to hold.
        ttl: seconds without use after which a session expires.
        max_answer_bytes: the most bytes of answers to remember.
        quota_sessions: the most sessions of one owner; None for no bound.
        quota_answer_bytes: the most bytes of answers to remember for one owner; None for no bound.
    """

    def __init__(
        self,
        counters: Counters,
        clock: Callable[[], float],
        release: Callable[[Session], None],
        busy: Collection[str],
        *,
        max_sessions: int,
        ttl: float,
        max_answer_bytes: int,
        quota_sessions: int | None = None,
        quota_answer_bytes: int | None = None,
    ) -> None:
        self.clock = clock
        self._counters = counters
        self._release = release
        self.busy = busy
        self._ttl = ttl
        self._max_sessions = max_sessions
        self._max_answer_bytes = max_answer_bytes
        self._has_quotas = not (quota_sessions is None and quota_answer_bytes is None)
        self._quota_sessions = max_sessions if quota_sessions is None else quota_sessions
        self._quota_answer_bytes = max_answer_bytes if quota_answer_bytes is None else quota_answer_bytes
        self._held: OrderedDict[str, Session] = OrderedDict()
        """The sessions that have begun. This dict, the next one and those of owners are in order of last use."""
        self._ended: OrderedDict[str, Session] = OrderedDict()
        """The sessions that have ended and still remember answers."""
        self._owned: dict[str, Owned] = {}
        """What each owner has, as long as it has anything."""
        self._sessions = Holdings()
        self._ends = Holdings()
        self._answer_bytes = Holdings()
        self._grown: set[str] = set()
        """Owners whose quota may be exceeded."""
        self._next_expiry = 0.0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def answer_bytes(self) -> int:
        """Bytes of the answers that all sessions remember."""
        return self._answer_bytes.total

    def find(self, key: str) -> Session:
        """Return the session as it stands; a session that is not in the table stands at step 0."""
        return self._held.get(key) or self._ended.get(key) or Session(key)

    def commit(self, after: Session) -> None:
        """Put a session's next value in the place of the one that is here now; `trim` then keeps the bounds."""
        before = self.find(after.key)
        if after.step:
            self._hold(before, after)
        else:
            self._forget(before)
            if after.answers.by_key:
                self._ended[after.key] = after
                self._owner(after.owner).ended[after.key] = None
                self._ends.add(after.owner, 1)
        if self._has_quotas:
            self._grown.add(after.owner)
        self._answer_bytes.add(before.owner, -before.answers.nbytes)
        self._answer_bytes.add(after.owner, after.answers.nbytes)
        if before.begun and before.slot != after.slot:
            self._release(before)

    def unload(self, key: str) -> None:
        """Take a session out of the table; the store still has it."""
        session = self.find(key)
        if session.version:
            self._drop(session)
        if session.begun:
            self._release(session)

    def touch(self, key: str) -> None:
        """Mark a session as used now, if it is held."""
        session = self._held.get(key)
        if session is not None:
            self._hold(session, session.used(self.clock()))

    def expire(self) -> None:
        """Let sessions go that nobody has used for `ttl` seconds."""
        now = self.clock()
        if now < self._next_expiry:
            return
        horizon = now - self._ttl
        while (oldest := self._oldest_idle(self._held)) is not None and self._held[oldest].last_used <= horizon:
            self._evict(oldest, "expired")
        while self._ended and next(iter(self._ended.values())).last_used <= horizon:
            self._drop(next(iter(self._ended.values())))
        first = [next(iter(sessions.values())).last_used for sessions in (self._held, self._ended) if sessions]
        self._next_expiry = min([now, *first]) + self._ttl

    def trim(self) -> None:
        """Let idle sessions go until the bounds are kept, or no idle session is left."""
        for owner in self._grown:
            while self._sessions[owner] > self._quota_sessions and self._evict_one(owner, "room"):
                pass
            while self._answer_bytes[owner] > self._quota_answer_bytes and self._evict_one(owner, "answers"):
                pass
        self._grown.clear()
        while self._sessions.total > self._max_sessions and self._evict_of(self._sessions, "room"):
            pass
        while self._answer_bytes.total > self._max_answer_bytes and self._evict_of(self._answer_bytes, "answers"):
            pass
        while self._ends.total > self._max_sessions:
            self._drop_ended(self._ends.largest())

    def _evict_of(self, held: Holdings, reason: Eviction) -> bool:
        """Let go the least recently used idle session of the owner that holds most.

        If all sessions of that owner are busy, wait for them as long as there is room: the engine has a slot more for
        each busy session. Without room, or for answers, let go the one of all that nobody has used for longest. Return
        False if nothing is let go.
        """
        if self._evict_one(held.largest(), reason):
            return True
        if reason == "room" and self._sessions.total <= self._max_sessions + len(self.busy):
            return False
        return self._evict_any(reason)

    def _evict_one(self, owner: str, reason: Eviction) -> bool:
        """Let go an owner's least recently used idle session; return False if it has none.

        If it goes for answers, one that has ended goes first, and one that remembers none stays.
        """
        owned = self._owned.get(owner, NOTHING_OWNED)
        if reason == "answers" and owned.ended:
            self._drop_ended(owner)
            return True
        key = self._oldest_idle(owned.remembering if reason == "answers" else owned.held)
        if key is not None:
            self._evict(key, reason)
        return key is not None

    def _evict_any(self, reason: Eviction) -> bool:
        """Let go the least recently used idle session of all; return False if there is none."""
        if reason == "answers" and self._ended:
            self._drop(next(iter(self._ended.values())))
            return True
        keys = (key for key, session in self._held.items() if reason != "answers" or session.answers.by_key)
        key = self._oldest_idle(keys)
        if key is not None:
            self._evict(key, reason)
        return key is not None

    def _drop_ended(self, owner: str) -> None:
        """Forget the answers of an owner's session that has ended, the one that ended first."""
        self._drop(self._ended[next(iter(self._owned[owner].ended))])

    def _oldest_idle(self, keys: Iterable[str]) -> str | None:
        """Return the first of the keys whose session has no turn."""
        return next((key for key in keys if key not in self.busy), None)

    def _owner(self, name: str) -> Owned:
        owned = self._owned.get(name)
        if owned is None:
            owned = self._owned[name] = Owned(OrderedDict(), OrderedDict(), OrderedDict())
        return owned

    def _hold(self, before: Session, after: Session) -> None:
        """Put a session into the table, as the most recently used one of all and of its owner."""
        key = after.key
        if key not in self._held or before.owner != after.owner:
            self._forget(before)
            self._sessions.add(after.owner, 1)
        self._held[key] = after
        self._held.move_to_end(key)
        owned = self._owner(after.owner)
        owned.held[key] = None
        owned.held.move_to_end(key)
        if after.answers.by_key:
            owned.remembering[key] = None
            owned.remembering.move_to_end(key)

    def _forget(self, session: Session) -> None:
        """Take a session out of the table."""
        key = session.key
        if self._held.pop(key, None) is not None:
            self._sessions.add(session.owner, -1)
        if self._ended.pop(key, None) is not None:
            self._ends.add(session.owner, -1)
        owned = self._owned.get(session.owner)
        if owned is not None:
            for keys in owned:
                keys.pop(key, None)
            if not any(owned):
                del self._owned[session.owner]

    def _evict(self, key: str, reason: Eviction) -> None:
        """Let a held session go."""
        session = self._held[key]
        self._counters.evicted[reason] += 1
        self._drop(session)
        self._release(session)

    def _drop(self, session: Session) -> None:
        """Take a session out of the table, with its answers."""
        self._forget(session)
        self._answer_bytes.add(session.owner, -session.answers.nbytes)
