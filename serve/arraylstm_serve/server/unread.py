"""The answers that clients do not read: their bytes are bounded over all connections."""

from __future__ import annotations

import asyncio
import logging

WRITE_BUFFER = 16_384
"""Bytes of answers that a connection may have unsent before its client counts as one that does not read."""

logger = logging.getLogger(__name__)


class Unread:
    """The connections whose clients do not read; if they have too many bytes unsent, those with the most are ended.

    Args:
        limit: the most bytes of all of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._transports: set[asyncio.WriteTransport] = set()

    def add(self, transport: asyncio.WriteTransport) -> None:
        """Count a connection whose client has stopped reading."""
        self._transports.add(transport)
        if len(self._transports) > self._limit // WRITE_BUFFER or self._total() > self._limit:
            self._end_some()

    def discard(self, transport: asyncio.WriteTransport) -> None:
        """Forget a connection whose client reads again, or which is closed."""
        self._transports.discard(transport)

    def _total(self) -> int:
        return sum(transport.get_write_buffer_size() for transport in self._transports)

    def _end_some(self) -> None:
        """End the connections with the most unsent bytes until the others are within the bound."""
        sizes = sorted(((one.get_write_buffer_size(), id(one), one) for one in self._transports), reverse=True)
        over = sum(size for size, _, _ in sizes) - self._limit
        for size, _, transport in sizes:
            if over <= 0:
                break
            over -= size
            self._transports.discard(transport)
            transport.abort()
            logger.warning(
                "a connection with %d bytes unread was ended: clients left more than --max-unread-bytes unread", size
            )
