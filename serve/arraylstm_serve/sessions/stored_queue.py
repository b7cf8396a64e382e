"""The turns of sessions that are kept in a store. The table of sessions is a cache of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from arraylstm_serve.api.problems import (
    CAPACITY,
    DEADLINE_EXCEEDED,
    INTERNAL,
    MODEL_MISMATCH,
    SESSION_DAMAGED,
    SESSION_REWOUND,
    STORE_UNAVAILABLE,
    Problem,
    internal,
    retry_later,
)
from arraylstm_serve.engine.batcher import Walk
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.sessions.behind import WriteBehind
from arraylstm_serve.sessions.commands import Change, Slow
from arraylstm_serve.sessions.keeper import Keeper, Next, named, session_of
from arraylstm_serve.sessions.queue import Queue
from arraylstm_serve.sessions.session import Session
from arraylstm_serve.sessions.turn import Done, Turn
from arraylstm_serve.stores.base import Failed, Loaded, Outcome
from arraylstm_serve.stores.record import WRITES, Record, RecordError, decode, stamp_of

CERTAIN = (CAPACITY, DEADLINE_EXCEEDED, INTERNAL, MODEL_MISMATCH, SESSION_DAMAGED, STORE_UNAVAILABLE)
"""The refusals that do not depend on where a session stands."""

logger = logging.getLogger(__name__)


class StoredQueue(Queue):
    """A queue whose turns load sessions that are not held, and end when the store has taken their changes.

    A change is made only if the store has the session as it was when the turn began. If it has another one, because
    another server has changed it, the session is loaded and the turn begins again. If servers share the store, an
    outcome without a change is sent only if the session was loaded for it.
    """

    def __init__(self, *parts: Any, keeper: Keeper, behind: WriteBehind | None = None, **bounds: Any) -> None:
        super().__init__(*parts, **bounds)
        self._keeper = keeper
        self._behind = behind
        self._dropped: dict[str, Session] = {}
        """The acknowledged values of sessions that were let go as the store failed; at most `max_sessions`."""

    def _begin(self, turn: Turn) -> bool:
        """See `Queue._begin`; load the session first if it is not held."""
        if turn.key and turn.loaded is None and not self._table.find(turn.key).version:
            ended = None if self._behind is None else self._behind.unsaved.get(turn.key)
            if ended is None:
                turn.seen = self._dropped.get(turn.key) if turn.command.waits else None
                self._load(turn)
                return True
            turn.loaded = ended  # the store does not know yet that it has ended
        return super()._begin(turn)

    def _start(self, turn: Turn) -> Walk | Change | Slow:
        """See `Queue._start`; refuse a state that another model has made.

        Raises:
            Problem: also `model_mismatch`.
        """
        loaded = turn.loaded
        if loaded is not None and loaded.begun and loaded.slot == INITIAL and turn.command.reads_state:
            detail = (
                f"Model {loaded.model} made the state of session {turn.command.session_id}; DELETE it to begin anew."
            )
            raise Problem(MODEL_MISMATCH, detail, session_id=turn.command.session_id)
        return super()._start(turn)

    def _end_at_once(self, turn: Turn, change: Change | Problem) -> bool:
        """End a turn. Return True: it is let go when its outcome is certain."""
        self._end([(turn, change)])
        return True

    def _end(self, done: list[Done]) -> None:
        """Commit the changes of turns to the store. End those at once that change nothing and are certain."""
        certain: list[Done] = []
        changed: list[tuple[Turn, Change]] = []
        for turn, change in done:
            if isinstance(change, Change) and change.session is not None:
                changed.append((turn, change))
            elif self._certain(turn, change):
                certain.append((turn, change))
            else:
                self._load_again(turn)
        if changed and self._behind is None:
            certain += self._write(changed)
        elif self._behind is not None:
            for start in range(0, len(changed), self._behind.most):
                some = changed[start : start + self._behind.most]
                answer = partial(self._answer_first, self._behind, some)
                self._behind.when_room(len(some), answer, partial(self._refuse, some))
        if certain:
            super()._end(certain)

    def _answer_first(self, behind: WriteBehind, changed: list[tuple[Turn, Change]]) -> None:
        """End turns before the store has their changes."""
        done: list[Done] = []
        for turn, change in changed:
            if change.session is not None:
                session = named(Next(turn.session, change.session, turn.model))
                behind.note(turn.session, session)
                change = Change(session, change.answer, change.unlisted)
            done.append((turn, change))
        super()._end(done)

    def _refuse(self, changed: list[tuple[Turn, Change]]) -> None:
        """End turns whose changes may not wait for the store any more; their sessions stay as they were."""
        super()._end([(turn, unavailable(turn, self._keeper.fault)) for turn, _ in changed])

    def _write(self, changed: list[tuple[Turn, Change]]) -> list[Done]:
        """Send changes to the store; return the turns that end now."""
        changes = [Next(turn.session, change.session, turn.model) for turn, change in changed if change.session]
        try:
            self._keeper.commit(changes, partial(self._committed, changed))
        except Exception:
            logger.exception("%d changes could not be written", len(changed))
            return [(turn, internal()) for turn, _ in changed]
        return []

    def _leave(self, turn: Turn) -> None:
        if turn.command.waits:
            super()._leave(turn)

    def _used(self, turn: Turn) -> None:
        """Do nothing: the store counts a session's time to live from its last change."""

    def _certain(self, turn: Turn, change: Change | Problem) -> bool:
        """Whether an outcome without a change does not come from a session that another server may have changed."""
        return (
            turn.loaded is not None
            or not turn.key
            or not self._keeper.store.shared
            or (self._behind is not None and turn.key in self._behind.unsaved)
            or (isinstance(change, Problem) and change.kind in CERTAIN)
        )

    # -- what comes from the store

    def _load(self, turn: Turn) -> None:
        self._keeper.load(turn.key, partial(self._found, turn))

    def _load_again(self, turn: Turn) -> None:
        """Begin a turn again with the session as the store has it."""
        if turn.target != INITIAL:
            turn.model.slots.release(turn.target)
            turn.target = INITIAL
        turn.seen = self._table.find(turn.key) if turn.command.waits else None
        turn.loaded = None
        self._load(turn)

    def _found(self, turn: Turn, found: Loaded) -> None:
        """Take the session that the store has, and begin the turn."""
        outcome: Session | Problem
        try:
            outcome = self._taken(turn, found)
        except RecordError as error:
            logger.warning("%s", error)
            outcome = self._damaged(turn, found, error)
        except Exception:
            logger.exception("session %s could not be loaded", turn.key)
            outcome = internal()
        if isinstance(outcome, Session):
            turn.loaded = outcome
            self._begin(turn)
        else:
            super()._end([(turn, outcome)])

    def _damaged(self, turn: Turn, found: Loaded, error: RecordError) -> Session | Problem:
        """Return what stands for a session whose record is damaged.

        A command that makes the state anew or removes it needs only the stamp, which the store compares.
        """
        command = turn.command
        stamp = stamp_of(found) if isinstance(found, bytes) else None
        if stamp is None or not stamp.version or not command.waits or command.reads_state:
            return Problem(SESSION_DAMAGED, str(error), session_id=command.session_id)
        return Session(turn.key, stamp.incarnation, stamp.version, step=1, writes=(stamp.write,))

    def _taken(self, turn: Turn, found: Loaded) -> Session | Problem:
        """Return the session that was found, which the table then has too, or why the turn is refused.

        Raises:
            RecordError: the record is damaged.
        """
        if isinstance(found, Failed):
            return unavailable(turn, found.reason)
        record = None if found is None else decode(turn.key, found)
        held = self._table.find(turn.key)
        if record is not None and held.stamp == record.stamp:
            return held
        session = Session(turn.key) if record is None else self._put(turn, record)
        if turn.command.waits and session.slot == INITIAL:
            self._table.unload(turn.key)  # a command that does not wait may come while a walk reads the session's slot
        seen, turn.seen = turn.seen, None
        if turn.command.waits:  # others do not compare, so what was seen must be kept for one that does
            self._dropped.pop(turn.key, None)
        if seen is not None and self._is_behind(session, seen):
            self._counters.rewound += 1
            detail = (
                f"The session store has lost steps: session {turn.command.session_id} stood at step {seen.step}, "
                f"and stands at step {session.step} now."
            )
            logger.error("%s", detail)
            return Problem(SESSION_REWOUND, detail, session_id=turn.command.session_id, step=session.step)
        return session

    def _put(self, turn: Turn, record: Record) -> Session:
        """Put a record's tensors into a slot and the session into the table, if its turn can go on from it."""
        model = self._choose(session_of(record, INITIAL, turn.caller.client))
        shapes = {name: tensor.shape for name, tensor in record.tensors.items()}
        usable = record.model == model.fingerprint and shapes == model.engine.shapes
        if not (turn.command.waits and record.step and usable):
            return session_of(record, INITIAL, turn.caller.client)
        slot = model.slots.acquire()
        model.write(slot, record.tensors)
        session = session_of(record, slot, turn.caller.client)
        self._table.commit(session)
        return session

    def _is_behind(self, session: Session, seen: Session) -> bool:
        """Whether the store has lost what was acknowledged here.

        A session that was removed leaves a record, one that has expired does not. A record names its last writes, also
        those before the session began anew; so what it has after fewer writes than that has followed what was seen, or
        what was seen is lost.
        """
        ttl = self._keeper.store.ttl
        if not session.version:
            return self._clock() - seen.last_used < ttl
        if not seen.writes or seen.writes[0] in session.writes:
            return False
        if session.incarnation == seen.incarnation:
            return session.version - seen.version < WRITES
        return len(session.writes) < WRITES and session.created - seen.last_used < ttl

    # -- what becomes of changes

    def _committed(
        self, changed: Sequence[tuple[Turn, Change]], outcomes: Sequence[Outcome], sessions: Sequence[Session]
    ) -> None:
        """Take the outcomes of a commit: answer, refuse, or begin again."""
        done: list[Done] = []
        for (turn, change), outcome, session in zip(changed, outcomes, sessions, strict=True):
            if outcome == "applied":
                done.append((turn, Change(session, change.answer, change.unlisted)))
            elif outcome == "stale":
                self._load_again(turn)
            else:
                self._drop(turn)
                done.append((turn, unavailable(turn, outcome.reason, unknown=outcome.unknown)))
        if done:
            super()._end(done)

    def _drop(self, turn: Turn) -> None:
        """Let a session go of which nobody knows what the store has; remember what was acknowledged."""
        self._table.unload(turn.key)
        last = turn.session
        if last.version:
            self._dropped[turn.key] = Session(
                last.key, last.incarnation, last.version, step=last.step, last_used=last.last_used, writes=last.writes
            )
            if len(self._dropped) > self._max_sessions:
                del self._dropped[next(iter(self._dropped))]


def unavailable(turn: Turn, reason: str, *, unknown: bool = False) -> Problem:
    """Return the refusal of a turn whose session the store could not read or write."""
    became = "may have been applied" if unknown else "was not applied"
    detail = f"The session store cannot be used: {reason}. The request {became}."
    return retry_later(STORE_UNAVAILABLE, detail, session_id=turn.command.session_id)
