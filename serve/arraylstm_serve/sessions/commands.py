"""What a session can be asked for in its turn."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

import msgspec

from arraylstm_serve.api.problems import SESSION_GONE, STEP_CONFLICT, Problem, plain_id
from arraylstm_serve.engine.batcher import Walk
from arraylstm_serve.engine.ranking import Ask, Ranking
from arraylstm_serve.engine.slots import Seen
from arraylstm_serve.sessions.queue import Reply, Turn
from arraylstm_serve.sessions.session import Record
from arraylstm_serve.sessions.table import Session


class Outcome(NamedTuple):
    """Where a session stands after a turn, and what the model says there."""

    slot: int
    step: int
    state: Literal["new", "continued", "restored"]
    seen: Sequence[Seen]
    ranking: Ranking


class IdempotencyKey(NamedTuple):
    """A key that names a request, and the digest of what was requested."""

    key: str
    digest: bytes

    @classmethod
    def of(cls, key: str | None, kind: str, asked: Any) -> Self | None:
        """The key, if there is one, of a request of some kind; what it asks for can be encoded as JSON."""
        return None if key is None else cls(key, hashlib.sha256(msgspec.json.encode((kind, asked))).digest())


Render = Callable[[Outcome], bytes]


class Keyed(Turn[bytes]):
    """A turn that an idempotency key lets be taken once: a repeat gets the first answer and moves nothing.

    Args:
        key: see `Turn`.
        reply: gets the answer.
        arrived: see `Turn`.
        deadline: see `Turn`.
        idempotency: the request's idempotency key.
    """

    __slots__ = ("_idempotency",)

    def __init__(
        self,
        key: str,
        reply: Reply[bytes],
        arrived: float,
        deadline: float,
        *,
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        super().__init__(key, reply, arrived, deadline)
        self._idempotency = idempotency

    def begin(self) -> Walk | None:
        """See `Turn.begin`; a refusal is idempotency_key_reused, the others are those of `start`."""
        if self._idempotency is not None:
            known = self._recall(self._idempotency)
            if known is not None:
                self.table.figures.replays += 1
                self.answer(known)
                return None
        return self.start()

    @abstractmethod
    def start(self) -> Walk | None:
        """Begin what is no repeat; see `Turn.begin`."""

    def remember(self, session: Session, answer: bytes) -> None:
        """Let the session keep the answer under the request's key, if it has one."""
        if self._idempotency is not None:
            self.table.remember(session, *self._idempotency, answer)

    def _recall(self, idempotency: IdempotencyKey) -> bytes | None:
        answers = self.table.answers(self.key)
        if answers is None:
            return None
        try:
            return answers.recall(*idempotency)
        except Problem as problem:
            problem.session_id = plain_id(self.key)
            raise


class Advance(Keyed):
    """Consume items, all or none.

    One item steps in the session's own slot, which is written only after a good run. Several walk on a copy,
    which is copied back at the end.

    Args:
        key: see `Turn`; the session begins with these items if it is not held.
        reply: gets the rendered outcome.
        arrived: see `Turn`.
        deadline: see `Turn`.
        items: item ids, at least one.
        ask: the predictions wanted.
        render: makes the reply of the outcome.
        expected_step: refuse unless the session stands there.
        idempotency: see `Keyed`.
        end: whether the session ends with these items.
    """

    __slots__ = ("_ask", "_end", "_expected_step", "_items", "_render", "_stood")

    def __init__(
        self,
        key: str,
        reply: Reply[bytes],
        arrived: float,
        deadline: float,
        *,
        items: Sequence[int],
        ask: Ask,
        render: Render,
        expected_step: int | None = None,
        idempotency: IdempotencyKey | None = None,
        end: bool = False,
    ) -> None:
        super().__init__(key, reply, arrived, deadline, idempotency=idempotency)
        self._items = items
        self._ask = ask
        self._render = render
        self._expected_step = expected_step
        self._end = end
        self._stood = 0

    def start(self) -> Walk:
        """See `Keyed.start`; refusals are step_conflict, session_gone and capacity."""
        table = self.table
        session = table.find(self.key)
        if session is None:
            self._check_gone()
            slot = table.admit()
        else:
            slot = self._resume(session)
        return Walk(self, slot, self._items, self._ask.reach, self.arrived, self.deadline)

    def end(self, walk: Walk) -> None:
        """Make the walked state the session's, and answer."""
        table = self.table
        arena = table.arena
        session = table.find(self.key)
        state: Literal["new", "continued", "restored"] = "continued" if self._stood else "new"
        if session is None:
            session = table.open(self.key, walk.slot)
        else:
            if session.slot != walk.slot:
                arena.copy(walk.slot, session.slot)
                arena.release(walk.slot)
            if session.restored:
                session.restored = False
                state = "restored"
        step = self._stood + len(self._items)
        answer = self._render(Outcome(session.slot, step, state, walk.seen, walk.ranking))
        table.figures.events += 1
        self.remember(session, answer)
        if self._end:
            table.end(session)
        self.answer(answer)

    def undo(self, walk: Walk) -> None:
        """Give the walked slot back; a session whose own slot moved without an answer is not held any longer."""
        table = self.table
        session = table.find(self.key)
        if session is None:
            table.cancel(walk.slot)
        elif session.slot != walk.slot:
            table.arena.release(walk.slot)
        elif table.step(session) != self._stood:
            table.close(session)

    def _resume(self, session: Session) -> int:
        """The slot to walk in from where the session stands."""
        arena = self.table.arena
        self._stood = self.table.step(session)
        self._check_step()
        if len(self._items) == 1:
            return session.slot
        slot = arena.acquire()
        arena.copy(session.slot, slot)
        return slot

    def _check_gone(self) -> None:
        if self._expected_step:
            self.table.figures.conflicts += 1
            session_id = plain_id(self.key)
            detail = f"Session {session_id} is not held, so it does not stand at step {self._expected_step}."
            raise Problem(SESSION_GONE, detail, session_id=session_id)

    def _check_step(self) -> None:
        expected, step = self._expected_step, self._stood
        if expected is not None and expected != step:
            self.table.figures.conflicts += 1
            session_id = plain_id(self.key)
            detail = f"Session {session_id} stands at step {step}, not at step {expected}."
            raise Problem(STEP_CONFLICT, detail, session_id=session_id, step=step)


class Begin(Advance):
    """Consume items as a session's first ones; they replace what was held of it, but for the answers it remembers.

    What was held stays until the walk has gone well.
    """

    __slots__ = ()

    def end(self, walk: Walk) -> None:
        """See `Advance.end`."""
        session = self.table.find(self.key)
        if session is not None:
            session.created = self.table.clock()
            session.restored = False
        super().end(walk)

    def _resume(self, session: Session) -> int:
        arena = self.table.arena
        slot = arena.acquire()
        arena.versions[slot] = arena.versions[session.slot]  # which never goes back
        return slot


class Continue(Advance):
    """Consume items where the session is held; a further refusal is unknown_session."""

    __slots__ = ()

    def _check_gone(self) -> None:
        self.table.get(self.key)


class Peek(Turn[bytes]):
    """Look at a session's predictions without moving it; the reply is the rendered outcome."""

    __slots__ = ("_ask", "_render")

    def __init__(
        self, key: str, reply: Reply[bytes], arrived: float, deadline: float, *, ask: Ask, render: Render
    ) -> None:
        super().__init__(key, reply, arrived, deadline)
        self._ask = ask
        self._render = render

    def begin(self) -> None:
        """See `Turn.begin`; the refusal is unknown_session."""
        session = self.table.get(self.key)
        (ranking,) = self.table.arena.rank([session.slot], self._ask.reach)
        state: Literal["restored", "continued"] = "restored" if session.restored else "continued"
        self.answer(self._render(Outcome(session.slot, self.table.step(session), state, (), ranking)))


class Remove(Keyed):
    """Forget a session and all that it answered; the empty answer to the request's own key outlives it."""

    __slots__ = ()

    def start(self) -> None:
        """See `Keyed.start`; the refusal is unknown_session."""
        session = self.table.get(self.key)
        self.table.erase(session)
        self.remember(session, b"")
        self.table.end(session)
        self.answer(b"")


class Save(Turn[Record]):
    """Hand out a session as it stands; it goes on here."""

    __slots__ = ()

    def begin(self) -> None:
        """See `Turn.begin`; the refusal is unknown_session."""
        session = self.table.get(self.key)
        (record,) = self.table.arena.save([session.slot])
        self.answer(record)


class Restore(Keyed):
    """Put a state in the place of a session's own, or begin a session with it; the answers it remembers stay.

    The reply is the rendered session, as it stands before anybody else's turn.
    """

    __slots__ = ("_record", "_render")

    def __init__(
        self,
        key: str,
        reply: Reply[bytes],
        arrived: float,
        deadline: float,
        *,
        record: Record,
        render: Callable[[Session], bytes],
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        super().__init__(key, reply, arrived, deadline, idempotency=idempotency)
        self._record = record
        self._render = render

    def start(self) -> None:
        """See `Keyed.start`; the refusal is capacity."""
        table = self.table
        session = table.find(self.key)
        slot = table.admit() if session is None else session.slot
        version = table.arena.versions.item(slot) + 1
        try:
            table.arena.load([slot], [replace(self._record, version=version)])
        except BaseException:
            if session is None:
                table.cancel(slot)
            raise
        if session is None:
            session = table.open(self.key, slot)
        session.restored = True
        session.last_used = table.clock()
        table.figures.restored += 1
        answer = self._render(session)
        self.remember(session, answer)
        self.answer(answer)
