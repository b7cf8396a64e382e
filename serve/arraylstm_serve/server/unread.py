"""What clients keep the server waiting for: answers that they do not read, messages that they do not end.

Each such connection has a clock, and the bytes of all of them together have a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

WRITE_BUFFER = 16_384
"""Bytes of answers that a connection may have unsent before its client counts as one that does not read."""

logger = logging.getLogger(__name__)


class Waiting:
    """Connections with bytes that wait for their clients. If there are too many, those are ended that began first.

    Args:
        limit: the most bytes of all of them.
        setting: the setting that has the limit, for the log.
    """

    def __init__(self, limit: int, setting: str) -> None:
        self._limit = limit
        self._setting = setting
        self._sizes: dict[asyncio.Transport, Callable[[], int]] = {}
        """How many bytes wait, by connection, in the order in which they began to."""

    def add(self, transport: asyncio.Transport, size: Callable[[], int]) -> None:
        """Count a connection from now on."""
        self._sizes[transport] = size
        over = sum(count() for count in self._sizes.values()) - self._limit
        while over > 0:
            oldest = next(iter(self._sizes))
            count = self._sizes.pop(oldest)()
            over -= count
            oldest.abort()
            logger.warning("ended a connection with %d bytes waiting: all have more than %s", count, self._setting)

    def discard(self, transport: asyncio.Transport) -> None:
        """Count a connection no more."""
        self._sizes.pop(transport, None)


class Patience:
    """Waits for one client, as long as it goes on; ends its connection if it stands still for too long.

    Args:
        transport: the connection.
        waiting: counts its bytes.
        left: returns how many bytes the client has yet to take; it goes on while they become fewer.
        size: returns how many bytes the server holds.
        seconds: how long it may stand still.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        waiting: Waiting,
        left: Callable[[], int],
        size: Callable[[], int],
        seconds: float,
    ) -> None:
        self._transport = transport
        self._waiting = waiting
        self._left = left
        self._size = size
        self._seconds = seconds
        self._before = 0
        self._clock: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin to wait, if it has not begun."""
        if self._clock is None:
            self._start()
            self._waiting.add(self._transport, self._size)

    def count(self) -> None:
        """Count the bytes of all connections again, as this one has more."""
        if self._clock is not None:
            self._waiting.add(self._transport, self._size)

    def end(self) -> None:
        """Wait no more."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
            self._waiting.discard(self._transport)

    def _start(self) -> None:
        self._before = self._left()
        self._clock = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def _look(self) -> None:
        if self._left() < self._before:
            self._start()
        else:
            self._transport.abort()


def of_reader(transport: asyncio.Transport, waiting: Waiting, seconds: float) -> Patience:
    """Return the patience with a client that does not read its answers."""
    return Patience(transport, waiting, transport.get_write_buffer_size, transport.get_write_buffer_size, seconds)
