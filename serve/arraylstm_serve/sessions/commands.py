"""Commands: what the server can be asked to do. A command is a value that knows no HTTP, and no model until its turn.

When a command's turn comes, `begin` returns either a change at once, or a walk to take first; after the walk, `finish`
returns the change. Neither method alters anything that others can see: the queue commits the change.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from msgspec import Raw, Struct

from arraylstm_serve.api.problems import UNKNOWN_SESSION, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.bundle.vocabulary import NOWHERE
from arraylstm_serve.counters import Changing
from arraylstm_serve.engine.batcher import Observed, Walk
from arraylstm_serve.engine.ranking import Ranking
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.predictions import Predictions
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
        unlisted: the places of the items that the model has no label for.
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
        unlisted: how many items the model has no label for.
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
