"""A thread of its own for what blocks: it takes all that waits at once, so that many commits share one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar

from arraylstm_serve.stores.base import Change, Loaded, Outcome

logger = logging.getLogger(__name__)


class Keeper(Protocol):
    """What the worker works on; only its thread calls these."""

    def load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        """Return the record of each key."""

    def commit(self, batches: Sequence[Sequence[Change]]) -> list[list[Outcome]]:
        """Make the changes of all batches, and return only when they are durable."""

    def close(self) -> None:
        """Let go of everything."""


class Task:
    """Something asked for, and the future that gets what came of it.

    Args:
        kind: `load`, `commit` or `call`.
        asked: the keys, the changes, or the function to call with the keeper.
    """

    __slots__ = ("asked", "future", "kind", "loop", "outcome")

    def __init__(self, kind: str, asked: Any) -> None:
        self.kind = kind
        self.asked = asked
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.outcome: Any = None

    def settle(self) -> None:
        """Give the future the outcome. Called in the event loop."""
        if self.future.done():
            return
        if isinstance(self.outcome, Exception):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.outcome)


K = TypeVar("K", bound=Keeper)


class Worker(Generic[K]):
    """Runs tasks on a thread: first the loads that wait, then all commits that wait as one group, then calls.

    A call may take long, and may let others go first now and then with `serve_waiting`.

    Args:
        open: makes the keeper; called on the thread.
    """

    def __init__(self, open: Callable[[], K]) -> None:
        self._open = open
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._calls: list[Task] = []
        self._thread = Thread(target=self._run, name="store", daemon=True)

    async def start(self) -> None:
        """Start the thread and open the keeper; raises what opening raises."""
        opened = Task("call", None)
        self._opened = opened
        self._thread.start()
        await opened.future

    async def ask(self, kind: str, asked: Any) -> Any:
        """Return what comes of a task; nothing may be asked after `close`."""
        task = Task(kind, asked)
        self._tasks.put(task)
        return await task.future

    async def close(self) -> None:
        """Finish what was asked before, close the keeper and end the thread."""
        self._tasks.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def serve_waiting(self) -> None:
        """Run the loads and commits that wait. For calls, on the thread."""
        self._serve(self._take(wait=False))

    def _run(self) -> None:
        try:
            self._keeper = self._open()
        except Exception as error:
            self._opened.outcome = error
            _answer([self._opened])
            return
        _answer([self._opened])
        while tasks := self._take(wait=True):
            self._serve(tasks)
            self._call()
        self._keeper.close()

    def _take(self, *, wait: bool) -> list[Task]:
        """Return all tasks that wait; if there are none and the worker goes on, the next one. Nothing at the end."""
        taken: list[Task] = []
        try:
            while (task := self._tasks.get(block=wait and not taken)) is not None:
                taken.append(task)
        except Empty:
            return taken
        self._tasks.put(None)  # for the next time
        return taken

    def _serve(self, tasks: list[Task]) -> None:
        tasks = [task for task in tasks if not task.future.cancelled()]  # nobody waits for these any more
        loads = [task for task in tasks if task.kind == "load"]
        commits = [task for task in tasks if task.kind == "commit"]
        self._calls += [task for task in tasks if task.kind == "call"]
        for task in loads:
            task.outcome = _attempt(partial(self._keeper.load, task.asked))
        _answer(loads)
        if commits:
            outcomes = _attempt(lambda: self._keeper.commit([task.asked for task in commits]))
            failed = isinstance(outcomes, Exception)
            for place, task in enumerate(commits):
                task.outcome = outcomes if failed else outcomes[place]
            _answer(commits)

    def _call(self) -> None:
        """Run the calls that were put off."""
        while self._calls:
            task = self._calls.pop(0)
            task.outcome = _attempt(partial(task.asked, self._keeper))
            _answer([task])


def _attempt(act: Callable[[], Any]) -> Any:
    """Return what a function returns, or the exception that it raises."""
    try:
        return act()
    except Exception as error:
        return error


def _settle(tasks: Sequence[Task]) -> None:
    for task in tasks:
        task.settle()


def _answer(tasks: Sequence[Task]) -> None:
    """Give tasks their outcomes, with one call into each event loop."""
    for loop in {task.loop for task in tasks}:
        own = [task for task in tasks if task.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle, own)
        except RuntimeError:  # the loop has been closed, so nobody waits
            logger.debug("%d outcomes came after the end of the event loop", len(own))
