"""The interface of a store: records by key, a batch at a time."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter, time
from typing import Literal, NamedTuple

from arraylstm_serve.counters import SECONDS, Histogram
from arraylstm_serve.stores.record import Stamp, stamp_of, writes_of

logger = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Returns seconds since the epoch."""


def steady_clock() -> Clock:
    """Return a clock of seconds since the epoch that never jumps, even if somebody sets the machine's time."""
    offset = time() - monotonic()
    return lambda: monotonic() + offset


CLOSED = "The session store is closed"

Operation = Literal["load", "commit", "sweep", "backup"]
LoadOutcome = Literal["found", "missing", "failed"]
CommitOutcome = Literal["applied", "stale", "failed"]


class StoreError(Exception):
    """A store cannot do what was asked; the message says why."""


class Change(NamedTuple):
    """A change of one key, made only if the store still has what the caller has seen.

    Attributes:
        key: the session's name.
        expected: the stamp of the record that the store must have; None if it must have none.
        record: the encoded next record; None removes the key.
    """

    key: str
    expected: Stamp | None
    record: bytes | None


class Failed(NamedTuple):
    """A key could not be read or written.

    Attributes:
        reason: why, for people and logs. It never holds a password.
        unknown: whether the change may have been made all the same, or may still be made.
    """

    reason: str
    unknown: bool = False


Loaded = bytes | Failed | None
"""A record's bytes, None if there is no record, or why it could not be read."""

Outcome = Literal["applied", "stale"] | Failed
"""What became of a change.

`applied`: it is made, now or when it was sent before. `stale`: the store has another record than expected, so nothing
was changed.
"""

Verdict = Literal["apply", "applied", "stale"]


def judge(stored: bytes | None, change: Change) -> Verdict:
    """Return whether a change is to be made, has been made before, or is stale. Every store follows this rule.

    Args:
        stored: the record that the store has, or its first `record.HEADER` bytes; None if it has none.
        change: the change.
    """
    if (None if stored is None else stamp_of(stored)) == change.expected:
        return "apply"
    if change.record is None:
        return "applied" if stored is None else "stale"
    return "applied" if stored is not None and writes_of(change.record)[0] in writes_of(stored) else "stale"


@dataclass(slots=True)
class StoreCounters:
    """What a store did.

    Attributes:
        seconds: the duration of each operation, by operation; the count of a histogram is the number of operations.
        loads: records asked for, by outcome.
        commits: changes, by outcome.
        bytes_read: bytes of the records that were loaded.
        bytes_written: bytes of the records that were applied.
        swept: expired records that the store removed; a store with its own expiry does not count them.
    """

    seconds: dict[Operation, Histogram] = field(default_factory=dict)
    loads: Counter[LoadOutcome] = field(default_factory=Counter)
    commits: Counter[CommitOutcome] = field(default_factory=Counter)
    bytes_read: int = 0
    bytes_written: int = 0
    swept: int = 0

    def timed(self, operation: Operation, began: float) -> None:
        """Count an operation that began at a time of perf_counter."""
        self.seconds.setdefault(operation, Histogram(SECONDS)).observe(perf_counter() - began)

    def loaded(self, found: dict[str, Loaded]) -> None:
        """Count what a load returned."""
        for one in found.values():
            self.loads["missing" if one is None else "failed" if isinstance(one, Failed) else "found"] += 1
            self.bytes_read += len(one) if isinstance(one, bytes) else 0

    def committed(self, changes: Sequence[Change], outcomes: Sequence[Outcome]) -> None:
        """Count what became of changes."""
        for change, outcome in zip(changes, outcomes, strict=True):
            self.commits["failed" if isinstance(outcome, Failed) else outcome] += 1
            self.bytes_written += len(change.record or b"") if outcome == "applied" else 0


class Store(ABC):
    """Keeps records by key. A record that nobody has written for `ttl` seconds is no longer there.

    Calls may overlap; those of one event loop at least. No call raises because of the store: what goes wrong is an
    outcome. A subclass states `describe`, `_load`, `_commit` and `_close`, and `_sweep` and `_backup` if it has them.

    Attributes:
        shared: whether several servers may use the store at once.
        ttl: seconds after its last write that a record lives.
        warnings: what the person who started the server should know about the store, a sentence each.
        counters: what the store did.
    """

    shared = False

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.warnings: list[str] = []
        self.counters = StoreCounters()
        self._closed = False

    @abstractmethod
    def describe(self) -> str:
        """Return the store's kind, version, place and settings in a line, without passwords."""

    async def load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        """Return the record of each key, all keys being different."""
        assert len(set(keys)) == len(keys), f"a key is asked for twice: {keys}"
        if self._closed:
            return dict.fromkeys(keys, Failed(CLOSED))
        began = perf_counter()
        try:
            found = await self._load(keys)
        except Exception as error:
            logger.exception("the store could not load %d records", len(keys))
            found = dict.fromkeys(keys, Failed(f"an unexpected {type(error).__name__}"))
        self.counters.timed("load", began)
        self.counters.loaded(found)
        return found

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make changes of different keys, each by itself, and return the outcome of each.

        A change whose outcome is `applied` survives what the store promises to survive.
        """
        assert len({change.key for change in changes}) == len(changes), "a key is changed twice in a batch"
        if self._closed:
            return [Failed(CLOSED) for _ in changes]
        began = perf_counter()
        try:
            outcomes = await self._commit(changes)
        except Exception as error:
            logger.exception("the store could not commit %d changes", len(changes))
            outcomes = [Failed(f"an unexpected {type(error).__name__}", unknown=True) for _ in changes]
        self.counters.timed("commit", began)
        self.counters.committed(changes, outcomes)
        return outcomes

    async def sweep(self) -> int:
        """Remove expired records, and return how many. A store with its own expiry has nothing to do.

        Raises:
            StoreError: the store cannot remove them.
        """
        self._check_open()
        began = perf_counter()
        removed = await self._sweep()
        self.counters.timed("sweep", began)
        self.counters.swept += removed
        return removed

    async def backup(self, path: Path) -> None:
        """Write a copy of all records to a file, while the store goes on serving.

        Raises:
            StoreError: the store has no such copy, or the file cannot be written.
        """
        self._check_open()
        began = perf_counter()
        await self._backup(path)
        self.counters.timed("backup", began)

    async def close(self) -> None:
        """Finish what was asked before, and let go of the store; nothing can be asked any more."""
        if not self._closed:
            self._closed = True
            await self._close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{CLOSED}.")

    @abstractmethod
    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]: ...

    @abstractmethod
    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]: ...

    @abstractmethod
    async def _close(self) -> None: ...

    async def _sweep(self) -> int:
        return 0

    async def _backup(self, path: Path) -> None:
        raise StoreError(f"The session store {self.describe()} makes no backups itself; use its own tools.")
