"""What a session can be asked for in its turn."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from arraylstm_serve.batcher import Seen, Walk
from arraylstm_serve.predictions import Ask, Ranking, rank
from arraylstm_serve.problems import SESSION_GONE, STEP_CONFLICT, Problem
from arraylstm_serve.sessions import Session, Sessions, Turn


class Outcome(NamedTuple):
    """Where a session stands after a turn, and what the model says there."""

    step: int
    state: Literal["new", "continued"]
    seen: Sequence[Seen]
    ranking: Ranking


class IdempotencyKey(NamedTuple):
    """A key that names a request, and the digest of what was requested."""

    key: str
    digest: bytes


class Advance(Turn[bytes]):
    """Consume items, all or none.

    One item steps in the session's own slot, which is written only after a good run. Several walk on a copy
    that takes the slot's place at the end.

    Args:
        session_id: the session; it begins with these items if it is not held.
        reply: gets the rendered outcome, or the first one again where the key is repeated.
        items: item ids, at least one.
        ask: the predictions wanted.
        expected_step: refuse unless the session stands there.
        key: the request's idempotency key.
        render: makes the reply of the outcome.
    """

    def __init__(
        self,
        session_id: str,
        reply: Future[bytes],
        *,
        items: Sequence[int],
        ask: Ask,
        expected_step: int | None,
        key: IdempotencyKey | None,
        render: Callable[[Outcome], bytes],
    ) -> None:
        super().__init__(session_id, reply)
        self._items = items
        self._ask = ask
        self._expected_step = expected_step
        self._key = key
        self._render = render

    def begin(self, table: Sessions) -> Walk | None:
        """See `Turn.begin`; refusals are idempotency_key_reused, step_conflict, session_gone and capacity."""
        session = table.find(self.session_id)
        if session is not None and self._key is not None:
            known = session.recall(self._key.key, self._key.digest)
            if known is not None:
                self.answer(known)
                return None
        self._check_step(table, session)
        reach = self._ask.reach(table.arena.logits.shape[1])
        return Walk(self._take_slot(table, session), self._items, reach)

    def end(self, table: Sessions, walk: Walk) -> None:
        """Make the walked slot the session's, and answer."""
        session = table.find(self.session_id)
        state: Literal["new", "continued"] = "new" if session is None else "continued"
        if session is None:
            session = table.open(self.session_id, walk.slot)
        elif session.slot != walk.slot:
            table.arena.release(session.slot)
            session.slot = walk.slot
        answer = self._render(Outcome(table.step(session), state, walk.seen, walk.ranking))
        if self._key is not None:
            table.remember(session, self._key.key, self._key.digest, answer)
        self.answer(answer)

    def undo(self, table: Sessions, walk: Walk) -> None:
        """Give the walked slot back where it was not the session's own."""
        session = table.find(self.session_id)
        if session is None:
            table.cancel()
        if session is None or session.slot != walk.slot:
            table.arena.release(walk.slot)

    def _check_step(self, table: Sessions, session: Session | None) -> None:
        expected = self._expected_step
        if session is None:
            if expected:
                detail = f"Session {self.session_id} is not held, so it does not stand at step {expected}."
                raise Problem(SESSION_GONE, detail, session_id=self.session_id)
            return
        step = table.step(session)
        if expected is not None and expected != step:
            detail = f"Session {self.session_id} stands at step {step}, not at step {expected}."
            raise Problem(STEP_CONFLICT, detail, session_id=self.session_id, step=step)

    def _take_slot(self, table: Sessions, session: Session | None) -> int:
        if session is None:
            table.admit()
            return table.arena.acquire()
        if len(self._items) == 1:
            return session.slot
        slot = table.arena.acquire()
        table.arena.copy(session.slot, slot)
        return slot


class Peek(Turn[bytes]):
    """Look at a session's predictions without moving it; the reply is the rendered outcome."""

    def __init__(self, session_id: str, reply: Future[bytes], *, ask: Ask, render: Callable[[Outcome], bytes]) -> None:
        super().__init__(session_id, reply)
        self._ask = ask
        self._render = render

    def begin(self, table: Sessions) -> None:
        """See `Turn.begin`; the refusal is unknown_session."""
        session = table.get(self.session_id)
        arena, row = table.arena, slice(session.slot, session.slot + 1)
        (ranking,) = rank(arena.logits[row], arena.log_sums[row], self._ask.reach(arena.logits.shape[1]))
        self.answer(self._render(Outcome(table.step(session), "continued", (), ranking)))


class Remove(Turn[None]):
    """Forget a session."""

    def begin(self, table: Sessions) -> None:
        """See `Turn.begin`; the refusal is unknown_session."""
        table.close(table.get(self.session_id).id)
        self.answer(None)
