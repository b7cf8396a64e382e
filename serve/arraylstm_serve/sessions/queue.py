"""Whose turn it is: every session has a queue of turns, which begin one after the other."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from arraylstm_serve.api.problems import SESSION_BUSY, Problem, internal, late, plain_id, retry_later
from arraylstm_serve.engine.batcher import Batcher, LateError, Walk
from arraylstm_serve.sessions.limits import Gate
from arraylstm_serve.sessions.table import Sessions

Value = TypeVar("Value")
Given = TypeVar("Given", contravariant=True)

logger = logging.getLogger(__name__)


class Reply(Protocol[Given]):
    """Where the outcome of a turn goes; asyncio's futures are such."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Given, /) -> None:
        """Take the answer."""

    def set_exception(self, exception: Problem, /) -> None:
        """Take the refusal."""


class Turn(ABC, Generic[Value]):
    """A request's place in its session's queue: it begins when the turn before it has ended.

    Args:
        key: whose queue.
        reply: resolved when the turn ends, whether or not anybody still waits for it.
        arrived: when the request came, by perf_counter.
        deadline: by perf_counter, after which the turn is refused and changes nothing.
    """

    __slots__ = ("arrived", "deadline", "key", "queues", "reply")

    queues: Queues
    """Where the turn was submitted."""

    def __init__(self, key: str, reply: Reply[Value], arrived: float, deadline: float) -> None:
        self.key = key
        self.reply = reply
        self.arrived = arrived
        self.deadline = deadline

    @property
    def table(self) -> Sessions:
        """The sessions that the turn is about."""
        return self.queues.table

    @abstractmethod
    def begin(self) -> Walk | None:
        """Start; a walk to take before the turn ends, or None where it has answered already.

        Raises:
            Problem: the turn is refused and has changed nothing.
        """

    def end(self, walk: Walk) -> None:
        """Take over what the walk has done, and answer."""

    def undo(self, walk: Walk) -> None:
        """Give back what `begin` took, the walk having failed."""

    def walked(self, walk: Walk, error: Exception | None) -> None:
        """See `batcher.Walker`."""
        self.queues.finish(self, walk, error)

    def answer(self, value: Value) -> None:
        """Resolve the reply, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_result(value)

    def refuse(self, problem: Problem) -> None:
        """Resolve the reply with a problem, unless the client has gone."""
        if not self.reply.done():
            self.reply.set_exception(problem)


class Queues:
    """The turns of all sessions, each session's in a first-in first-out queue.

    Args:
        table: told which sessions have turns.
        batcher: takes the turns' walks.
        gate: counts the turns that have not ended.
        max_turns: how many turns may queue for one session.
    """

    def __init__(self, table: Sessions, batcher: Batcher, gate: Gate, max_turns: int) -> None:
        self.table = table
        self._batcher = batcher
        self._gate = gate
        self._max_turns = max_turns
        self._queues: dict[str, deque[Turn[Any]]] = {}

    def submit(self, turn: Turn[Any]) -> None:
        """Queue a turn.

        Raises:
            Problem: `overloaded` or `session_busy`, where too many requests are pending, at all or for this session.
        """
        self.table.expire()
        queue = self._queues.get(turn.key)
        if queue is not None and len(queue) >= self._max_turns:
            detail = f"{self._max_turns} requests are pending for session {plain_id(turn.key)}, as many as are allowed."
            raise retry_later(SESSION_BUSY, detail, session_id=plain_id(turn.key))
        self._gate.enter()
        turn.queues = self
        if queue is None:
            self.table.rouse(turn.key)
            queue = self._queues[turn.key] = deque((turn,))
            self._proceed(turn.key, queue)
        else:
            queue.append(turn)

    def finish(self, turn: Turn[Any], walk: Walk, error: Exception | None) -> None:
        """End the turn at the head of its queue, and begin the next one."""
        try:
            if error is None:
                turn.end(walk)
            else:
                turn.undo(walk)
                turn.refuse(refusal(error))
        except Exception:
            logger.exception("a turn of session %s could not end", turn.key)
            turn.refuse(internal())
        queue = self._queues[turn.key]
        queue.popleft()
        self._gate.leave()
        self._proceed(turn.key, queue)

    def _proceed(self, key: str, queue: deque[Turn[Any]]) -> None:
        """Begin the turns of a queue until one has to wait for its walk, or none is left."""
        while queue:
            walk = self._begin(queue[0])
            if walk is not None:
                self._batcher.submit(walk)
                return
            queue.popleft()
            self._gate.leave()
        del self._queues[key]
        self.table.rest(key)

    def _begin(self, turn: Turn[Any]) -> Walk | None:
        if turn.deadline < perf_counter():
            turn.refuse(late())
            return None
        try:
            return turn.begin()
        except Problem as problem:
            turn.refuse(problem)
        except Exception:
            logger.exception("a turn of session %s could not begin", turn.key)
            turn.refuse(internal())
        return None


def refusal(error: Exception) -> Problem:
    """What a client is told of a walk that went wrong."""
    return late() if isinstance(error, LateError) else internal()
