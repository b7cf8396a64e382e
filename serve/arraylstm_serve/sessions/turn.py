"""A command's turn: its place in the queue of its session, and where its outcome goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from arraylstm_serve.api.problems import Problem
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.sessions.commands import Caller, Change, Command
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.session import Session


class Reply(Protocol):
    """Takes the outcome of a command, for example an asyncio future."""

    def done(self) -> bool:
        """Return whether nobody waits for the outcome any more."""

    def set_result(self, result: bytes, /) -> None:
        """Take the answer."""

    def set_exception(self, exception: Problem, /) -> None:
        """Take the refusal."""


class Turn:
    """A command's place in its session's queue. `commands.Turn` is the part of it that the command sees.

    Args:
        check_capacity: raises Problem `capacity` if no session may begin now.
        command: what is asked.
        caller: who asks.
        key: the session's name in the table; empty if the command has no session.
        reply: takes the outcome.

    Attributes:
        target: the slot for the session's next state; the initial one as long as none is taken.
        loaded: the session as the store has it, if it was loaded for this turn.
        seen: the session as it was acknowledged here before it was loaded again, if it was.
    """

    __slots__ = (
        "_check_capacity",
        "caller",
        "command",
        "key",
        "loaded",
        "model",
        "now",
        "reply",
        "seen",
        "session",
        "target",
    )

    model: Model
    session: Session
    now: float

    def __init__(
        self, check_capacity: Callable[[], None], command: Command, caller: Caller, key: str, reply: Reply
    ) -> None:
        self._check_capacity = check_capacity
        self.command = command
        self.caller = caller
        self.key = key
        self.reply = reply
        self.target = INITIAL
        self.loaded: Session | None = None
        self.seen: Session | None = None

    def acquire(self) -> int:
        """See `commands.Turn`."""
        if self.key and not self.session.begun:
            self._check_capacity()
        self.target = self.model.slots.acquire()
        return self.target

    def answer(self, value: bytes) -> None:
        """Send the answer, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_result(value)

    def refuse(self, problem: Problem) -> None:
        """Send a refusal, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_exception(problem)


Done = tuple[Turn, Change | Problem]
"""A turn that is over, and the change that it makes, or the reason why it makes none."""
