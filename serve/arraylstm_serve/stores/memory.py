"""A store in this process's memory: what the other stores are compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence

from arraylstm_serve.stores.base import Change, Clock, Loaded, Outcome, Store, judge


class MemoryStore(Store):
    """Keeps records in a dict; they end with the process.

    Args:
        ttl: seconds after its last write that a record lives.
        clock: returns seconds since the epoch.
    """

    def __init__(self, ttl: float, clock: Clock = time.time) -> None:
        super().__init__(ttl)
        self._clock = clock
        self._records: dict[str, tuple[float, bytes]] = {}
        """When each record expires, and its bytes."""

    def describe(self) -> str:
        """See `Store.describe`."""
        return "memory"

    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        return {key: self._find(key) for key in keys}

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        return [self._change(change) for change in changes]

    async def _close(self) -> None:
        self._records.clear()

    async def _sweep(self) -> int:
        gone = [key for key in self._records if self._find(key) is None]
        for key in gone:
            del self._records[key]
        return len(gone)

    def _find(self, key: str) -> bytes | None:
        expires, record = self._records.get(key, (0.0, None))
        return record if expires > self._clock() else None

    def _change(self, change: Change) -> Outcome:
        verdict = judge(self._find(change.key), change)
        if verdict != "apply":
            return verdict
        if change.record is None:
            self._records.pop(change.key, None)
        else:
            self._records[change.key] = self._clock() + self.ttl, change.record
        return "applied"
