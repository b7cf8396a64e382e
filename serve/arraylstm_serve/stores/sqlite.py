"""The store in an SQLite file: `--sessions sqlite:PATH`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from arraylstm_serve.stores.base import Change, Clock, Failed, Loaded, Outcome, Store, steady_clock
from arraylstm_serve.stores.sqlite_file import SqliteFile
from arraylstm_serve.stores.worker import Worker

SWEEP_RECORDS = 100
"""The most expired records removed at once, in some milliseconds; commits that wait go between."""

TIMEOUT = 10.0
"""Seconds after which a load or a commit has failed."""

PATIENCE = 5.0
"""Seconds to wait at the start for another process to let go of the file."""


class SqliteStore(Store):
    """Keeps records in an SQLite file. A thread of its own does all that blocks. `open` makes one.

    All changes that wait are one transaction, so a disk that takes long to write slows each change little.
    """

    def __init__(self, path: Path, worker: Worker[SqliteFile], *, durable: bool, ttl: float, timeout: float) -> None:
        super().__init__(ttl)
        self._timeout = timeout
        self._waiting = 0
        self._stands_still = False
        self._path = path
        self._worker = worker
        self._durable = durable

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        durable: bool,
        ttl: float,
        timeout: float = TIMEOUT,
        clock: Clock | None = None,
        patience: float = PATIENCE,
    ) -> Self:
        """Open a file; see `SqliteFile` for what is asked and raised.

        Loads and commits have failed after `timeout` seconds, if the disk stands still. Commits may be made later.
        """
        clock = clock or steady_clock()
        worker = Worker(partial(SqliteFile, path, durable=durable, ttl=ttl, clock=clock, patience=patience))
        await worker.start()
        return cls(path, worker, durable=durable, ttl=ttl, timeout=timeout)

    def describe(self) -> str:
        """See `Store.describe`."""
        synchronous = "FULL" if self._durable else "NORMAL"
        return f"SQLite {sqlite3.sqlite_version}, {self._path}, synchronous={synchronous}"

    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        found: dict[str, Loaded] | Failed = await self._ask("load", keys)
        return dict.fromkeys(keys, found) if isinstance(found, Failed) else found

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes: list[Outcome] | Failed = await self._ask("commit", changes)
        return [outcomes] * len(changes) if isinstance(outcomes, Failed) else outcomes

    async def _ask(self, kind: str, asked: Any) -> Any:
        """Return what the worker answers, or Failed if the disk stands still.

        Then one call at a time goes on to try, and the others fail at once: what waits for the disk has a bound.
        """
        silent = f"the disk has not answered within {self._timeout:.3g} seconds"
        if self._stands_still and self._waiting:
            return Failed(silent)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._worker.ask(kind, asked)
        except TimeoutError:
            self._stands_still = True
            return Failed(silent, unknown=kind == "commit")
        finally:
            self._waiting -= 1
        self._stands_still = False
        return answer

    async def _close(self) -> None:
        await self._worker.close()

    async def _sweep(self) -> int:
        removed = 0
        while (portion := await self._worker.ask("call", lambda file: file.sweep(SWEEP_RECORDS))) > 0:
            removed += portion
        return removed

    async def _backup(self, path: Path) -> None:
        await self._worker.ask("call", lambda file: file.backup(path, self._worker.serve_waiting))
