"""The answers that clients do not read: their bytes are bounded over all connections."""

from __future__ import annotations

import asyncio
import logging

WRITE_BUFFER = 16_384
"""Bytes of answers that a connection may have unsent before its client counts as one that does not read."""

logger = logging.getLogger(__name__)


class Unread:
    """The connections whose clients do not read. If too many bytes are unsent, those are ended that stopped first.

    Args:
        limit: the most bytes of all of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._transports: dict[asyncio.WriteTransport, None] = {}
        """The connections in the order in which their clients stopped reading."""

    def add(self, transport: asyncio.WriteTransport) -> None:
        """Count a connection whose client has stopped reading."""
        self._transports[transport] = None
        over = sum(one.get_write_buffer_size() for one in self._transports) - self._limit
        while over > 0:
            oldest = next(iter(self._transports))
            del self._transports[oldest]
            size = oldest.get_write_buffer_size()
            over -= size
            oldest.abort()
            logger.warning("ended a connection that left %d bytes unread: all have more than --max-unread-bytes", size)

    def discard(self, transport: asyncio.WriteTransport) -> None:
        """Forget a connection whose client reads again, or which is closed."""
        self._transports.pop(transport, None)
