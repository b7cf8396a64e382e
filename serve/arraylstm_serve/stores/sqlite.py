"""The store in an SQLite file: `--sessions sqlite:PATH`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from arraylstm_serve.stores.base import Change, Clock, Loaded, Outcome, Store
from arraylstm_serve.stores.sqlite_file import SqliteFile
from arraylstm_serve.stores.worker import Worker

SWEEP_RECORDS = 100
"""The most expired records removed at once, in some milliseconds; commits that wait go between."""

PATIENCE = 5.0
"""Seconds to wait at the start for another process to let go of the file."""


class SqliteStore(Store):
    """Keeps records in an SQLite file. A thread of its own does all that blocks. `open` makes one.

    All changes that wait are one transaction, so a disk that takes long to write slows each change little.
    """

    def __init__(self, path: Path, worker: Worker[SqliteFile], *, durable: bool, ttl: float) -> None:
        super().__init__(ttl)
        self._path = path
        self._worker = worker
        self._durable = durable

    @classmethod
    async def open(
        cls, path: Path, *, durable: bool, ttl: float, clock: Clock = time.time, patience: float = PATIENCE
    ) -> Self:
        """Open a file; see `SqliteFile` for what is asked and raised."""
        worker = Worker(partial(SqliteFile, path, durable=durable, ttl=ttl, clock=clock, patience=patience))
        await worker.start()
        return cls(path, worker, durable=durable, ttl=ttl)

    def describe(self) -> str:
        """See `Store.describe`."""
        synchronous = "FULL" if self._durable else "NORMAL"
        return f"SQLite {sqlite3.sqlite_version}, {self._path}, synchronous={synchronous}"

    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        found: dict[str, Loaded] = await self._worker.ask("load", keys)
        return found

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes: list[Outcome] = await self._worker.ask("commit", changes)
        return outcomes

    async def _close(self) -> None:
        await self._worker.close()

    async def _sweep(self) -> int:
        removed = 0
        while (portion := await self._worker.ask("call", lambda file: file.sweep(SWEEP_RECORDS))) > 0:
            removed += portion
        return removed

    async def _backup(self, path: Path) -> None:
        await self._worker.ask("call", lambda file: file.backup(path, self._worker.serve_waiting))
