"""Turns: each session has a queue of them. A turn begins when the one before it has ended.

A turn finds its session in the table, begins its command, waits for the walk, renders the answer, commits the change
and sends the reply, in this order. If it fails before the commit, the session stays as it was.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

import msgspec

from arraylstm_serve.api.problems import (
    CAPACITY,
    IDEMPOTENCY_KEY_REUSED,
    SESSION_BUSY,
    SESSION_GONE,
    STEP_CONFLICT,
    Problem,
    internal,
    late,
    retry_later,
)
from arraylstm_serve.counters import OK, Counters
from arraylstm_serve.engine.batcher import Walk
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.heavy import HeavyWork, Pieces
from arraylstm_serve.sessions.commands import Caller, Change, Command, Slow
from arraylstm_serve.sessions.limits import Bound
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.predictions import Predictions
from arraylstm_serve.sessions.session import Session
from arraylstm_serve.sessions.table import Table
from arraylstm_serve.sessions.turn import Done, Reply, Turn
from arraylstm_serve.stores.record import Kept
from arraylstm_serve.text import shown

CONFLICTS = (STEP_CONFLICT, SESSION_GONE)

logger = logging.getLogger(__name__)


class Queue:
    """The turns of all sessions; each session's turns are first in, first out.

    Args:
        table: the sessions.
        waiting: the dict in which the queue keeps the turns of each session. A session with turns is busy.
        counters: they count what commands did.
        pending: counts the turns that have not ended.
        heavy: does the work of turns whose answers are long.
        clock: returns seconds since the epoch, and never goes back.
        choose: returns the model for a session's turn.
        max_sessions: the most sessions that may be busy when a session begins, that session included.
        max_turns: the most turns of one session that may wait or run.
    """

    def __init__(
        self,
        table: Table,
        waiting: dict[str, deque[Turn]],
        counters: Counters,
        pending: Bound,
        heavy: HeavyWork,
        clock: Callable[[], float],
        choose: Callable[[Session], Model],
        *,
        max_sessions: int,
        max_turns: int,
    ) -> None:
        self._table = table
        self._waiting = waiting
        self._counters = counters
        self._pending = pending
        self._heavy = heavy
        self._clock = clock
        self._choose = choose
        self._max_sessions = max_sessions
        self._max_turns = max_turns

    def submit(self, command: Command, caller: Caller, reply: Reply) -> None:
        """Queue a command. A command without a session begins at once.

        Raises:
            Problem: `overloaded`: too many requests are pending; `session_busy`: too many are pending for the session.
        """
        self._table.expire()
        session_id = command.session_id
        key = f"{caller.namespace}/{session_id}" if caller.namespace and session_id else session_id
        if not command.waits:
            self._begin(Turn(self._check_capacity, command, caller, key, reply))
            return
        turns = self._waiting.get(key)
        if turns is not None and len(turns) >= self._max_turns:
            detail = (
                f"{len(turns)} requests are pending for session {session_id}; at most {self._max_turns} are allowed."
            )
            raise retry_later(SESSION_BUSY, detail, session_id=session_id)
        self._pending.enter(caller.client)
        turn = Turn(self._check_capacity, command, caller, key, reply)
        if not key:
            if not self._begin(turn):
                self._pending.leave(caller.client)
        elif turns is not None:
            turns.append(turn)
        else:
            turns = self._waiting[key] = deque((turn,))
            self._proceed(key, turns)

    def finish(self, walks: Sequence[Walk]) -> None:
        """Take walks that have ended: render their answers, commit their changes, and begin the next turns."""
        now = self._clock()
        done: list[Done] = []
        for walk in walks:
            if walk.heavy and walk.fault is None:
                turn: Turn = walk.owner
                self._heavy.submit(turn.caller.client, self._slowly(turn, self._long_answer(turn, walk)))
            else:
                done.append((walk.owner, _rendered(walk.owner, walk, now)))
        self._end(done)

    def _long_answer(self, turn: Turn, walk: Walk) -> Slow:
        """Make the change of a completed walk whose answer is long, piece by piece."""
        predictions = yield from turn.command.predict(turn, walk)
        turn.now = self._clock()
        return turn.command.finish(turn, walk, predictions)

    def _slowly(self, turn: Turn, work: Slow) -> Pieces:
        """Do the work of a turn piece by piece, then end the turn."""
        change: Change | Problem
        try:
            change = _keyed(turn, (yield from work))
        except Exception:
            logger.exception("a turn of session %s could not end", turn.key)
            change = internal()
        self._end([(turn, change)])

    def _end(self, done: list[Done]) -> None:
        """Commit the changes of turns, and begin the next turns."""
        self._commit(done)
        for turn, _ in done:
            self._leave(turn)

    def _leave(self, turn: Turn) -> None:
        """Let a turn that has ended go, and begin the session's next one."""
        self._pending.leave(turn.caller.client)
        if turn.key:
            turns = self._waiting[turn.key]
            turns.popleft()
            self._proceed(turn.key, turns)

    def _check_capacity(self) -> None:
        """Raise Problem `capacity` if as many other sessions are busy as may be held."""
        if len(self._waiting) > self._max_sessions:
            raise retry_later(CAPACITY, f"All {self._max_sessions} sessions are busy.")

    def _proceed(self, key: str, turns: deque[Turn]) -> None:
        """Begin a session's turns until one waits for its walk, or none is left."""
        while turns:
            if self._begin(turns[0]):
                return
            self._pending.leave(turns.popleft().caller.client)
        del self._waiting[key]
        self._table.trim()

    def _begin(self, turn: Turn) -> bool:
        """Begin a turn. Return True if it waits for a walk or other work now, False if it has ended."""
        change: Change | Problem
        try:
            begun = self._start(turn)
            if isinstance(begun, Walk):
                turn.model.batcher.submit(begun)
                return True
            if not isinstance(begun, Change):
                self._heavy.submit(turn.caller.client, self._slowly(turn, begun))
                return True
            change = _keyed(turn, begun)
        except Problem as problem:
            change = problem.with_traceback(None)  # it refers to this frame, and so to all that was sent
        except Exception:
            logger.exception("a turn of session %s could not begin", turn.key)
            change = internal()
        return self._end_at_once(turn, change)

    def _end_at_once(self, turn: Turn, change: Change | Problem) -> bool:
        """End a turn that has just begun. Return False: it has ended, and whoever began it lets it go."""
        self._commit([(turn, change)])
        return False

    def _start(self, turn: Turn) -> Walk | Change | Slow:
        """Find the session and begin the command; if the command is a repeat, return the first answer instead.

        Raises:
            Problem: the command is too late, held back, or refused.
        """
        command = turn.command
        if turn.caller.deadline < perf_counter():
            raise late()
        held_back = turn.caller.held_back.get(command.session_id)
        if held_back is not None:
            raise held_back
        turn.now = self._clock()
        session = turn.session = turn.loaded or self._table.find(turn.key)
        if command.idempotency_key is not None:
            known = session.answers.by_key.get(command.idempotency_key)
            if known is not None:
                answer = _repeated(command, known)
                self._counters.replays += 1
                return Change(None, answer)
        turn.model = self._choose(session)
        return command.begin(turn)

    def _commit(self, done: list[Done]) -> None:
        """Commit changes, then answer. If one commit fails, the other turns are still answered."""
        for place, (turn, change) in enumerate(done):
            kept = INITIAL
            try:
                kept = self._apply(turn, change)
            except Exception:
                logger.exception("a change of session %s could not be committed", turn.key)
                done[place] = turn, internal()
            if turn.target not in (INITIAL, kept):
                turn.model.slots.release(turn.target)
        self._table.trim()
        now = perf_counter()
        for turn, change in done:
            outcome = OK
            if isinstance(change, Change):
                self._counters.unknown_items += change.unlisted
                turn.answer(change.answer)
            else:
                outcome = change.kind.code
                turn.refuse(change)
            if turn.command.counted_as == "events":
                self._counters.event(outcome, now - turn.caller.arrived)

    def _apply(self, turn: Turn, change: Change | Problem) -> int:
        """Apply a change to the table. Return the session's slot if the session changed, else the initial slot."""
        command = turn.command
        if isinstance(change, Problem):
            if change.kind in CONFLICTS:
                self._counters.conflicts += 1
        elif change.session is not None:
            self._table.commit(change.session)
            if command.counted_as is not None:
                self._counters.changes[command.counted_as] += 1
            return change.session.slot
        elif command.uses:
            self._used(turn)
        return INITIAL

    def _used(self, turn: Turn) -> None:
        """Count a use of a session that does not change it."""
        self._table.touch(turn.key)


def digest(command: Command) -> bytes:
    """Return the SHA-256 of what a command asks for."""
    return hashlib.sha256(msgspec.json.encode(command.asked)).digest()


def _repeated(command: Command, known: Kept) -> bytes:
    """Return the answer that an earlier command got under the same key.

    Raises:
        Problem: `idempotency_key_reused`: the earlier command asked for something else.
    """
    if known.digest != digest(command):
        detail = f"Idempotency-Key {shown(command.idempotency_key)} was sent before with another request."
        raise Problem(IDEMPOTENCY_KEY_REUSED, detail, session_id=command.session_id)
    return known.answer


def _rendered(turn: Turn, walk: Walk, now: float) -> Change | Problem:
    """Return the change that an ended walk makes, or the reason why it makes none."""
    turn.now = now
    if walk.fault is not None:
        return late() if walk.fault == "late" else internal()
    try:
        predictions = Predictions(walk.selection.choose(walk.ranking))
        return _keyed(turn, turn.command.finish(turn, walk, predictions))
    except Exception:
        logger.exception("a turn of session %s could not end", turn.key)
        return internal()


def _keyed(turn: Turn, change: Change) -> Change:
    """Return the change; if the command has an idempotency key, with a session that remembers the answer."""
    command, session = turn.command, change.session
    if command.idempotency_key is None or session is None:
        return change
    remembering = session.remembering(command.idempotency_key, digest(command), change.answer)
    return Change(remembering, change.answer, change.unlisted)
