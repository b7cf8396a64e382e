"""The bounds on pending requests: how many there may be at once, and how many of them bulk requests may bring."""

from __future__ import annotations

from asyncio import Future, get_running_loop, timeout
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arraylstm_serve.api.problems import OVERLOADED, retry_later


class Gate:
    """Counts the pending requests, and refuses those beyond a limit.

    Attributes:
        inside: how many requests are pending: they wait or run.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.inside = 0

    def enter(self) -> None:
        """Let a request in.

        Raises:
            Problem: `overloaded`: the limit is reached.
        """
        if self.inside >= self._limit:
            raise retry_later(OVERLOADED, f"{self.inside} requests are pending; at most {self._limit} are allowed.")
        self.inside += 1

    def leave(self) -> None:
        """Let a request out."""
        self.inside -= 1


class Share:
    """The half of a gate's places that bulk requests may use, first come, first served.

    A bulk request waits for places, where a single event would be refused. The other half is left to single events.

    Args:
        limit: the limit of the gate.

    Attributes:
        size: how many places bulk requests may use together.
    """

    def __init__(self, limit: int) -> None:
        self.size = max(1, limit // 2)
        self._free = self.size
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    @asynccontextmanager
    async def places(self, count: int, patience: float) -> AsyncIterator[None]:
        """Wait at most `patience` seconds for `count` places, at most `size`; hold them during the context.

        Raises:
            TimeoutError: the places did not become free in that time.
        """
        await self._take(count, patience)
        try:
            yield
        finally:
            self._give(count)

    async def _take(self, count: int, patience: float) -> None:
        if count <= self._free and not self._waiting:
            self._free -= count
            return
        granted: Future[None] = get_running_loop().create_future()
        self._waiting.append((count, granted))
        try:
            async with timeout(patience):
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled():  # the places were granted at the same moment
                self._give(count)
            else:
                granted.cancel()
                self._give(0)  # others may have waited behind this one
            raise

    def _give(self, count: int) -> None:
        self._free += count
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted, granted = self._waiting.popleft()
            if not granted.done():
                self._free -= wanted
                granted.set_result(None)
