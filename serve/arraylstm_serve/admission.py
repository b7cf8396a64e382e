"""The bound on work: how many requests may wait or run at once."""

from __future__ import annotations

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
