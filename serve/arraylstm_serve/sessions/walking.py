"""The commands that walk items: a session's events, and a history without a session."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Literal

from arraylstm_serve.api.problems import SESSION_GONE, STEP_CONFLICT, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.engine.batcher import Walk
from arraylstm_serve.engine.ranking import Selection
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.sessions.commands import Change, Command, Outcome, Render, Slow, Turn
from arraylstm_serve.sessions.observed import observed_of_all
from arraylstm_serve.sessions.predictions import Predictions, Write, predict_in_pieces
from arraylstm_serve.sessions.session import Session, State


class _Walking(Command, frozen=True, gc=False, kw_only=True):
    """A command that walks items.

    Attributes:
        items: item labels, at least one.
        top_k: how many predictions to return.
        exclude: items to leave out of the predictions.
        render: writes the answer.
        write: writes the predictions of a long answer, piece by piece; None if `render` needs them all.
        values: how many numbers the answer has besides predictions and observations.
    """

    items: Sequence[Item]
    top_k: int
    exclude: Sequence[Item] = ()
    render: Render
    write: Write | None = None
    values: int = 0

    def walk(self, turn: Turn, session: Session) -> Walk | Slow:
        """Return the walk of the items from where a session stands; or the work to do if no item is left to walk.

        Raises:
            Problem: `invalid_request`, `unknown_item`, `capacity`.
        """
        model, caller = turn.model, turn.caller
        items, selection = model.encode(self.items), model.selection(self.top_k, self.exclude)
        source = session.slot
        if not items:
            return self._stay(turn, session, selection)
        return Walk(
            turn,
            source,
            turn.acquire(),
            items,
            selection,
            caller.client,
            caller.arrived,
            caller.deadline,
            values=self.values,
        )

    def predict(self, turn: Turn, walk: Walk) -> Generator[None, None, Predictions]:
        """See `Command.predict`."""
        return predict_in_pieces(turn.model, walk.target, walk.selection, self.write)

    def _stay(self, turn: Turn, session: Session, selection: Selection) -> Slow:
        """Answer with what is predicted where the session stands; nothing if it has not begun."""
        model, predictions = turn.model, Predictions()
        if session.begun:
            predictions = yield from predict_in_pieces(model, session.slot, selection, self.write)
        everywhere = frozenset(range(len(self.items)))
        observed = observed_of_all(len(self.items), (), everywhere, model.vocabulary.last_rank, begun=session.begun)
        ranking, written = predictions
        outcome = Outcome(
            self.session_id,
            session.step,
            session.state,
            self.items,
            observed,
            ranking,
            session.slot,
            written,
            everywhere,
        )
        return Change(self.stayed(turn, session), self.render(model, outcome), len(self.items))

    def stayed(self, turn: Turn, session: Session) -> Session | None:
        """Return the next value of a session that has consumed no item; None if it does not change."""
        return None

    def unlisted(self, turn: Turn, walk: Walk) -> frozenset[int]:
        """Return the places of the items that the model has no label for."""
        return turn.model.vocabulary.unlisted(self.items, walk.items)

    def outcome(
        self, turn: Turn, walk: Walk, predictions: Predictions, step: int, state: State, unlisted: frozenset[int]
    ) -> Outcome:
        """Return where a completed walk has led."""
        ranking, written = predictions
        last, begun = turn.model.vocabulary.last_rank, walk.source != INITIAL
        observed = observed_of_all(len(self.items), walk.observed, unlisted, last, begun=begun)
        return Outcome(self.session_id, step, state, self.items, observed, ranking, walk.target, written, unlisted)


class Advance(_Walking, frozen=True, gc=False, kw_only=True):
    """Consume items: all of them or none.

    Attributes:
        expected_step: refuse unless the session stands at this step; None for any step.
        end: whether the session ends with these items.
        start: whether the session begins with these items. "if needed": if it has not begun. "always": even if it has;
            then it loses its state, but not its remembered answers. "never": refuse if it has not begun.
        body: the body of the request, if the fields above do not tell everything that it asks for.
    """

    expected_step: int | None = None
    end: bool = False
    start: Literal["if needed", "always", "never"] = "if needed"
    body: bytes | None = None

    counted_as = "events"

    @property
    def asked(self) -> Any:
        """See `Command.asked`."""
        if self.body is not None:
            return "infer", self.body
        return "advance", self.items, self.top_k, self.expected_step, self.exclude, self.end

    def begin(self, turn: Turn) -> Walk | Slow:
        """See `Command.begin`.

        Raises:
            Problem: `step_conflict`, `session_gone`, `unknown_session`, `invalid_request`, `unknown_item`, `capacity`.
        """
        session = self._start(turn)
        if self.start == "never":
            self.require_begun(session)
        self._check_step(session)
        return self.walk(turn, session)

    def stayed(self, turn: Turn, session: Session) -> Session | None:
        """See `_Walking.stayed`. A session that has not begun keeps nothing but its answers under keys."""
        if not session.begun and not turn.session.begun and self.idempotency_key is None:
            return None
        after = session.unmoved(turn.now, turn.caller.client)
        return after.at_end(turn.now) if self.end and after.begun else after

    def finish(self, turn: Turn, walk: Walk, predictions: Predictions) -> Change:
        """See `Command.finish`."""
        before, model = self._start(turn), turn.model
        labels, unlisted = model.vocabulary.decode(walk.items), self.unlisted(turn, walk)
        stood_in = bool(unlisted) and len(labels) == len(self.items)
        if stood_in:
            labels = tuple(self.items[place] if place in unlisted else label for place, label in enumerate(labels))
        after = before.advanced(walk.target, model.fingerprint, labels, turn.now, turn.caller.client)
        if stood_in:
            after = after.with_recent(model.vocabulary.bounded(after.recent))
        answer = self.render(model, self.outcome(turn, walk, predictions, after.step, before.state, unlisted))
        return Change(after.at_end(turn.now) if self.end else after, answer, len(unlisted))

    def _start(self, turn: Turn) -> Session:
        """Return the session to go on from."""
        return turn.session.at_end(turn.now) if self.start == "always" else turn.session

    def _check_step(self, session: Session) -> None:
        expected, step = self.expected_step, session.step
        if expected is None or expected == step:
            return
        if not step:
            detail = f"The server does not have session {self.session_id}, so it is not at step {expected}."
            raise Problem(SESSION_GONE, detail, session_id=self.session_id)
        detail = f"Session {self.session_id} stands at step {step}, not at step {expected}."
        raise Problem(STEP_CONFLICT, detail, session_id=self.session_id, step=step)


class Predict(_Walking, frozen=True, gc=False, kw_only=True):
    """Walk a history from the initial state, and keep no session."""

    session_id: str = ""

    def begin(self, turn: Turn) -> Walk | Slow:
        """See `Command.begin`; it may raise `invalid_request` or `unknown_item`."""
        return self.walk(turn, turn.session)

    def finish(self, turn: Turn, walk: Walk, predictions: Predictions) -> Change:
        """See `Command.finish`."""
        unlisted = self.unlisted(turn, walk)
        answer = self.render(turn.model, self.outcome(turn, walk, predictions, len(walk.items), "new", unlisted))
        return Change(None, answer, len(unlisted))
