"""Connections whose clients do not take what is written for them, and those that do not close: each has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

LOOKS = 1.0
"""Seconds between two looks at the connections."""


async def end_stalled(connections: Iterable[Any], patience: Callable[[], float]) -> None:
    """Look at the connections again and again; end those that stand still.

    A connection stands still while bytes wait to be sent and none goes out, or while it is closing. uvicorn closes
    connections in many places, and closing waits for a client that does not read.

    Args:
        connections: uvicorn's own set of them; those without a transport are left alone.
        patience: seconds for which a connection may stand still.
    """
    now = asyncio.get_running_loop().time
    standing: dict[Any, tuple[int, float]] = {}
    while True:
        await asyncio.sleep(LOOKS)
        standing = _look(connections, standing, now(), patience())


def _look(
    connections: Iterable[Any], standing: dict[Any, tuple[int, float]], now: float, patience: float
) -> dict[Any, tuple[int, float]]:
    """Return the connections that stand still, each with its bytes to send and the time since which it has not moved.

    Those that have stood for too long are ended.
    """
    still = {}
    for connection in list(connections):
        transport = getattr(connection, "transport", None)
        if transport is None:
            continue
        waiting = transport.get_write_buffer_size()
        if not waiting and not transport.is_closing():
            continue
        before, since = standing.get(connection, (waiting, now))
        if waiting < before:
            since = now
        if now - since >= patience:
            transport.abort()
        else:
            still[connection] = waiting, since
    return still
