"""What the server can be asked: values that know no HTTP and no model until their turn begins.

A command's turn begins with `begin`, which either gives a change at once or a walk to take first; `finish` makes the
change of a walk that has reached its end. Neither alters anything that others see: the queue commits the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

from msgspec import Struct

from arraylstm_serve.api.problems import SESSION_GONE, STEP_CONFLICT, UNKNOWN_SESSION, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.engine.batcher import Seen, Walk
from arraylstm_serve.engine.ranking import Ranking
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.session import Session, State
from arraylstm_serve.sessions.state_file import dump, parse


class Caller(Struct, frozen=True, gc=False):
    """Who asks, and how long they wait.

    Attributes:
        namespace: whose sessions they can see.
        arrived: when the request came, by perf_counter.
        deadline: the request does not begin after this, by perf_counter.
    """

    namespace: str
    arrived: float
    deadline: float


class Turn(Protocol):
    """What a command sees when its turn begins.

    Attributes:
        caller: who asked.
        model: the model that the session is walked through.
        session: the session as it stands; of a command without a session, one that nobody knows.
        now: seconds since the epoch.
    """

    caller: Caller
    model: Model
    session: Session
    now: float

    def acquire(self) -> int:
        """A slot of the model's for the session's next state.

        Raises:
            Problem: `capacity`, where the session has not begun and there are as many busy ones as may be held.
        """


class Outcome(Struct, frozen=True, gc=False):
    """Where a session stands after a command, and what the model says there.

    Attributes:
        session_id: the session's id, empty where there is none.
        step: how many items the session has consumed.
        state: what the session was before the command.
        items: the items just consumed, as they were sent.
        seen: what the model had thought of each of them.
        predictions: the most likely next items that were asked for.
        slot: the model's slot with the state there.
    """

    session_id: str
    step: int
    state: State
    items: Sequence[Item]
    seen: Sequence[Seen]
    predictions: Ranking
    slot: int


Render = Callable[[Model, Outcome], bytes]
"""Writes an answer."""


class Change(Struct, frozen=True, gc=False):
    """What a turn comes to: the session as it is from now on, None where it stays as it is, and the answer."""

    session: Session | None
    answer: bytes


class Command(Struct, frozen=True, gc=False, kw_only=True):
    """Something to ask of a session in its turn.

    Attributes:
        session_id: the session's id, empty where the command is for none.
        idempotency_key: a repeat under the same key gets the first answer and moves nothing.
    """

    session_id: str
    idempotency_key: str | None = None

    uses: ClassVar[bool] = True
    """Whether the session counts as used."""
    counted_as: ClassVar[Literal["events", "restored"] | None] = None
    """The figure that counts such commands."""

    @property
    def asked(self) -> Any:
        """What a repeat has to ask for too, as JSON can have it."""
        return type(self).__name__

    def begin(self, turn: Turn) -> Walk | Change:
        """Begin.

        Raises:
            Problem: the command is refused.
        """
        raise NotImplementedError

    def finish(self, turn: Turn, walk: Walk) -> Change:
        """Make the change of a walk that has reached its end."""
        raise NotImplementedError

    def require_begun(self, session: Session) -> None:
        """Raise Problem `unknown_session` where the session is not held."""
        if not session.begun:
            detail = f"Session {self.session_id} is not held."
            raise Problem(UNKNOWN_SESSION, detail, session_id=self.session_id)


class _Walking(Command, frozen=True, gc=False, kw_only=True):
    """Walks items from where the session stands.

    Attributes:
        items: item labels, at least one.
        top_k: how many predictions to answer.
        exclude: items to leave out of them.
        render: writes the answer.
    """

    items: Sequence[Item]
    top_k: int
    exclude: Sequence[Item] = ()
    render: Render

    def walk(self, turn: Turn, source: int) -> Walk:
        """The walk of the items from a slot."""
        model, caller = turn.model, turn.caller
        items, ask = model.encode(self.items), model.ask(self.top_k, self.exclude)
        return Walk(turn, source, turn.acquire(), items, ask, caller.arrived, caller.deadline)

    def answer(self, turn: Turn, walk: Walk, step: int, state: State) -> bytes:
        """The rendered outcome of a walk."""
        predictions = walk.ask.choose(walk.ranking)
        return self.render(
            turn.model, Outcome(self.session_id, step, state, self.items, walk.seen, predictions, walk.target)
        )


class Advance(_Walking, frozen=True, gc=False, kw_only=True):
    """Consume items, all or none.

    Attributes:
        expected_step: refuse unless the session stands there.
        end: whether the session ends with these items.
        start: whether the session begins with these items; "if needed" where it is not held, "always" in the place of
            what is held of it but for the answers it remembers, "never" where it must be held.
        body: the request as it was sent, where that is not what the fields say.
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
        """See `Command.begin`; refusals are step_conflict, session_gone, unknown_session, unknown_item and capacity."""
        session = self._start(turn)
        if self.start == "never":
            self.require_begun(session)
        self._check_step(session)
        return self.walk(turn, session.slot)

    def finish(self, turn: Turn, walk: Walk) -> Change:
        """See `Command.finish`."""
        before, model = self._start(turn), turn.model
        labels = model.vocabulary.decode(walk.items)
        after = before.advanced(walk.target, model.fingerprint, labels, turn.now)
        answer = self.answer(turn, walk, after.step, before.state)
        return Change(after.ended(turn.now) if self.end else after, answer)

    def _start(self, turn: Turn) -> Session:
        """The session to go on from."""
        return turn.session.ended(turn.now) if self.start == "always" else turn.session

    def _check_step(self, session: Session) -> None:
        expected, step = self.expected_step, session.step
        if expected is None or expected == step:
            return
        if not step:
            detail = f"Session {self.session_id} is not held, so it does not stand at step {expected}."
            raise Problem(SESSION_GONE, detail, session_id=self.session_id)
        detail = f"Session {self.session_id} stands at step {step}, not at step {expected}."
        raise Problem(STEP_CONFLICT, detail, session_id=self.session_id, step=step)


class Predict(_Walking, frozen=True, gc=False, kw_only=True):
    """Walk a history from the initial state; no session is kept."""

    session_id: str = ""

    def begin(self, turn: Turn) -> Walk:
        """See `Command.begin`; the refusal is unknown_item."""
        return self.walk(turn, turn.session.slot)

    def finish(self, turn: Turn, walk: Walk) -> Change:
        """See `Command.finish`."""
        return Change(None, self.answer(turn, walk, len(self.items), "new"))


class Peek(Command, frozen=True, gc=False, kw_only=True):
    """Look at a session's predictions without moving it."""

    top_k: int
    render: Render

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; the refusal is unknown_session."""
        session = turn.session
        self.require_begun(session)
        ask = turn.model.ask(self.top_k)
        ranking = ask.choose(turn.model.rank(session.slot, ask.reach))
        outcome = Outcome(self.session_id, session.step, session.state, (), (), ranking, session.slot)
        return Change(None, self.render(turn.model, outcome))


class Inspect(Command, frozen=True, gc=False, kw_only=True):
    """Tell where a session stands; asking is not using it."""

    describe: Callable[[str, Session], bytes]

    uses = False

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; the refusal is unknown_session."""
        self.require_begun(turn.session)
        return Change(None, self.describe(self.session_id, turn.session))


class Remove(Command, frozen=True, gc=False, kw_only=True):
    """Forget a session and all that it answered; the empty answer to the command's own key outlives it."""

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; the refusal is unknown_session."""
        self.require_begun(turn.session)
        return Change(turn.session.forgotten(turn.now), b"")


class Save(Command, frozen=True, gc=False, kw_only=True):
    """Hand out a session's state as a file; the session goes on here."""

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; the refusal is unknown_session."""
        session, model = turn.session, turn.model
        self.require_begun(session)
        recent = model.bundle.vocabulary.encode_known(session.recent)
        return Change(None, dump(model.read(session.slot), recent, session.step, session.model))


class Restore(Command, frozen=True, gc=False, kw_only=True):
    """Put the state in a file in the place of a session's own, or begin a session with it; its answers stay."""

    file: bytes
    describe: Callable[[str, Session], bytes]

    counted_as = "restored"

    @property
    def asked(self) -> Any:
        """See `Command.asked`."""
        return "restore", self.file

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; refusals are model_mismatch, invalid_state and capacity."""
        model = turn.model
        state = parse(self.file, model.fingerprint, model.engine.shapes)
        slot = turn.acquire()
        model.write(slot, state.tensors)
        recent = model.vocabulary.decode(state.recent)
        after = turn.session.given(slot, model.fingerprint, state.step, recent, turn.now)
        return Change(after, self.describe(self.session_id, after))
