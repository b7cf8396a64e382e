"""Waiting until something is so: a test that waits in vain fails, and does not hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic, sleep

PATIENCE = 60.0
"""Seconds: many times what a busy machine takes."""


def until(condition: Callable[[], object], *, pause: float = 0.0, patience: float = PATIENCE) -> None:
    """Return once a condition holds, looked at again after each pause of so many seconds.

    Raises:
        AssertionError: it did not hold in time.
    """
    for _ in _looks(condition, patience):
        sleep(pause)


async def until_soon(condition: Callable[[], object], *, patience: float = PATIENCE) -> None:
    """Return once a condition holds, while what else runs in the loop goes on; raises as `until` does."""
    for _ in _looks(condition, patience):
        await asyncio.sleep(0)


def _looks(condition: Callable[[], object], patience: float) -> Iterator[None]:
    ends = monotonic() + patience
    while not condition():
        assert monotonic() < ends, f"not so after {patience:.0f} s: {condition}"
        yield
