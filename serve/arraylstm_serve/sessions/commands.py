"""Commands: what the server can be asked to do. A command is a value that knows no HTTP, and no model until its turn.

When a command's turn comes, `begin` returns either a change at once, or a walk to take first; after the walk, `finish`
returns the change. Neither method alters anything that others can see: the queue commits the change.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from msgspec import Raw, Struct

from arraylstm_serve.api.problems import SESSION_GONE, STEP_CONFLICT, UNKNOWN_SESSION, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.bundle.vocabulary import NOWHERE
from arraylstm_serve.counters import Changing
from arraylstm_serve.engine.batcher import Observed, Walk
from arraylstm_serve.engine.ranking import Ranking
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.predictions import Predictions, Write, predict_in_pieces
from arraylstm_serve.sessions.session import Session, State


class Caller(Struct, frozen=True, gc=False):
    """Who asks, and how long they wait.

    Attributes:
        namespace: the namespace of the sessions that they can see.
        client: whom the bounds and shares count: the name of their API key, or their address.
        arrived: when the request arrived, by perf_counter.
        deadline: the latest time to begin the request, by perf_counter.
        held_back: by session id, the refusals that may be over soon of what else was asked in the same request. Later
            commands get the same refusal when their turn comes, because they must not overtake the refused one when it
            is sent again. It may grow meanwhile; its problems have no tracebacks.
    """

    namespace: str
    client: str
    arrived: float
    deadline: float
    held_back: Mapping[str, Problem] = {}


class Turn(Protocol):
    """A command's turn, as the command sees it.

    Attributes:
        caller: who asked.
        model: the model that answers.
        session: the session as it stands; for a command without a session, one at step 0.
        now: the current time, in seconds since the epoch.
    """

    caller: Caller
    model: Model
    session: Session
    now: float

    def acquire(self) -> int:
        """Take a slot of the model for the session's next state.

        Raises:
            Problem: `capacity`: the session has not begun, and as many others are busy as may be held.
        """


class Outcome(Struct, frozen=True, gc=False):
    """Where a session stands after a command, and what the model predicts there.

    Attributes:
        session_id: the session's id; empty if there is no session.
        step: how many items the session has consumed.
        state: what the session was before the command.
        items: the items just consumed, as they were sent.
        observed: the probability and rank of each of these items before it was consumed.
        predictions: the most likely next items, as the request wants them.
        slot: the slot that holds the state after the command.
        written: the predictions as the answer has them, if they were written in pieces; then `predictions` is empty.
        unlisted: the places of the items that the model took as its unknown item.
    """

    session_id: str
    step: int
    state: State
    items: Sequence[Item]
    observed: Sequence[Observed]
    predictions: Ranking
    slot: int
    written: Raw | None = None
    unlisted: frozenset[int] = NOWHERE


Render = Callable[[Model, Outcome], bytes]
"""Writes an answer."""


class Change(Struct, frozen=True, gc=False):
    """The result of a turn.

    Attributes:
        session: the session's next value; None if the session does not change.
        answer: the encoded answer.
        unlisted: how many items the model took as its unknown item.
    """

    session: Session | None
    answer: bytes
    unlisted: int = 0


Slow = Generator[None, None, Change]
"""Work that stops after each piece, and returns a turn's change in the end."""


class Command(Struct, frozen=True, gc=False, kw_only=True):
    """Something that the server can be asked to do when its turn comes.

    Attributes:
        session_id: the session's id; empty if the command has no session.
        idempotency_key: names the request: a repeat under the same key gets the first answer and changes nothing.
    """

    session_id: str
    idempotency_key: str | None = None

    waits: ClassVar[bool] = True
    """Whether the command waits for its session's earlier commands, and takes a place among the pending ones."""
    uses: ClassVar[bool] = True
    """Whether the command counts as a use of its session."""
    reads_state: ClassVar[bool] = True
    """Whether the command goes on from the session's tensors."""
    counted_as: ClassVar[Changing | None] = None
    """The counter to increase if the command changes its session; None for no counter."""

    @property
    def asked(self) -> Any:
        """What the command asks for, as a value for JSON. A repeat under the same key must ask for the same."""
        return type(self).__name__

    def begin(self, turn: Turn) -> Walk | Change | Slow:
        """Begin the turn: return its change, or a walk to take first, or the long work that makes the change.

        Raises:
            Problem: the command is refused.
        """
        raise NotImplementedError

    def finish(self, turn: Turn, walk: Walk, predictions: Predictions) -> Change:
        """Return the change that a completed walk makes, with an answer that has these predictions."""
        raise NotImplementedError

    def predict(self, turn: Turn, walk: Walk) -> Generator[None, None, Predictions]:
        """Rank and write the predictions of a walk whose answer is long, piece by piece."""
        raise NotImplementedError

    def require_begun(self, session: Session) -> None:
        """Raise Problem `unknown_session` if the session has not begun."""
        if not session.begun:
            detail = f"The server does not have session {self.session_id}."
            raise Problem(UNKNOWN_SESSION, detail, session_id=self.session_id)


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

    def walk(self, turn: Turn, source: int) -> Walk:
        """Return the walk of the items from a slot."""
        model, caller = turn.model, turn.caller
        items, selection = model.encode(self.items), model.selection(self.top_k, self.exclude)
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

    def unlisted(self, turn: Turn, walk: Walk) -> frozenset[int]:
        """Return the places of the items that the model took as its unknown item."""
        return turn.model.vocabulary.unlisted(self.items, walk.items)

    def outcome(
        self, walk: Walk, predictions: Predictions, step: int, state: State, unlisted: frozenset[int]
    ) -> Outcome:
        """Return where a completed walk has led."""
        ranking, written = predictions
        return Outcome(self.session_id, step, state, self.items, walk.observed, ranking, walk.target, written, unlisted)


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

    def begin(self, turn: Turn) -> Walk:
        """See `Command.begin`.

        Raises:
            Problem: `step_conflict`, `session_gone`, `unknown_session`, `invalid_request`, `unknown_item`, `capacity`.
        """
        session = self._start(turn)
        if self.start == "never":
            self.require_begun(session)
        self._check_step(session)
        return self.walk(turn, session.slot)

    def finish(self, turn: Turn, walk: Walk, predictions: Predictions) -> Change:
        """See `Command.finish`."""
        before, model = self._start(turn), turn.model
        labels, unlisted = model.vocabulary.decode(walk.items), self.unlisted(turn, walk)
        if unlisted:
            labels = tuple(self.items[place] if place in unlisted else label for place, label in enumerate(labels))
        after = before.advanced(walk.target, model.fingerprint, labels, turn.now, turn.caller.client)
        if unlisted:
            after = after.with_recent(model.vocabulary.bounded(after.recent))
        answer = self.render(model, self.outcome(walk, predictions, after.step, before.state, unlisted))
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

    def begin(self, turn: Turn) -> Walk:
        """See `Command.begin`; it may raise `invalid_request` or `unknown_item`."""
        return self.walk(turn, turn.session.slot)

    def finish(self, turn: Turn, walk: Walk, predictions: Predictions) -> Change:
        """See `Command.finish`."""
        unlisted = self.unlisted(turn, walk)
        answer = self.render(turn.model, self.outcome(walk, predictions, len(self.items), "new", unlisted))
        return Change(None, answer, len(unlisted))
