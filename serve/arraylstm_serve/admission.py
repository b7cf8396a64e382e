"""The bound on work: how many requests may wait or run at once, and how many of them bulk requests may bring."""

from __future__ import annotations

from asyncio import Semaphore
from contextlib import AbstractAsyncContextManager

from arraylstm_serve.problems import OVERLOADED, retry_later


class Gate:
    """Counts the requests inside and refuses those beyond a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.inside = 0

    def enter(self) -> None:
        """Let a request in.

        Raises:
            Problem: `overloaded`, where the limit is reached.
        """
        if self.inside >= self._limit:
            raise retry_later(OVERLOADED, f"{self._limit} requests are pending, as many as are allowed.")
        self.inside += 1

    def leave(self) -> None:
        """Let a request out."""
        self.inside -= 1


class Share:
    """Half of a gate's places, which bulk requests take in chunks, first come, first served.

    A chunk waits for its turn where a single event would be refused, and leaves single events the other half.

    Args:
        limit: the gate's.
        largest: most events that a chunk should have.

    Attributes:
        size: most events that a chunk may have.
    """

    def __init__(self, limit: int, largest: int) -> None:
        places = max(1, limit // 2)
        self.size = min(places, largest)
        self._chunks = Semaphore(places // self.size)

    def chunk(self) -> AbstractAsyncContextManager[None]:
        """Wait for a chunk's places, and have them until the context ends."""
        return self._chunks
