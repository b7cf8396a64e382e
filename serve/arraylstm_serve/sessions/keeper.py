"""Between the queue and the store: sessions become records and records sessions, a batch at a time."""

from __future__ import annotations

import logging
from asyncio import Task, get_running_loop, sleep
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.session import Answers, Session
from arraylstm_serve.stores.base import Change, Failed, Loaded, Outcome, Store, StoreError
from arraylstm_serve.stores.record import WRITES, Record, encode, new_write, stamp_of

SWEEPS = 60.0
"""Seconds between two removals of expired records, by stores that do not expire them by themselves."""

PROBES = 1.0
"""Seconds between two looks at a store that has failed."""

PROBED = tuple(f"?{number}" for number in range(16))
"""The keys to look for; no session has such an id. In a cluster some of them lie on a node that works, if any does."""

Use = Literal["load", "commit"]
"""What a store is used for, and what can fail by itself: a full disk refuses changes and goes on answering loads."""

Found = Callable[[Loaded], None]
"""Takes what the store has under a key."""

logger = logging.getLogger(__name__)


class Next(NamedTuple):
    """A session's next value, to be committed.

    Attributes:
        before: the session as it was.
        after: its next value; its state is in its slot of the model.
        model: the model that made the state.
    """

    before: Session
    after: Session
    model: Model


Committed = Callable[[Sequence[Outcome], Sequence[Session]], None]
"""Takes the outcomes of a commit, and the values of the sessions as the store has them if they are applied."""


class Keeper:
    """Reads and writes a store's records for the queue. Its methods return at once.

    Args:
        store: the store, open.

    Attributes:
        store: the store.
        lost: sessions of which answered steps were lost because another server had changed them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lost = 0
        self._faults: dict[Use, str] = {}
        self._probing: Task[None] | None = None
        self._too_large = 0
        """The size of the largest record in the last commit that has failed."""
        self._wanted: dict[str, list[Found]] = {}
        self._tasks: set[Task[None]] = set()
        self._sweeping = self.do(self._sweep())

    @property
    def fault(self) -> str:
        """Why the store cannot be used now, the last load or the last change having failed; empty if it can."""
        return next(iter(self._faults.values()), "")

    def load(self, key: str, found: Found) -> None:
        """Look for a record; those asked for in one round of the event loop are loaded together."""
        if not self._wanted:
            get_running_loop().call_soon(self._load_wanted)
        self._wanted.setdefault(key, []).append(found)

    def commit(self, changes: Sequence[Next], committed: Committed) -> None:
        """Write the next values of different sessions."""
        sessions = [named(change) for change in changes]
        self.do(self._commit(encoded(changes, sessions), sessions, committed))

    async def write(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make changes, and remember whether the store works."""
        outcomes = await self.store.commit(changes)
        if any(isinstance(outcome, Failed) for outcome in outcomes):
            self._too_large = max(len(change.record or b"") for change in changes)
        self._note("commit", outcomes)
        return outcomes

    async def close(self) -> None:
        """Let go of the store, once it has done what was asked."""
        self._sweeping.cancel()
        await self.store.close()

    def _load_wanted(self) -> None:
        wanted, self._wanted = self._wanted, {}
        self.do(self._load(wanted))

    async def _load(self, wanted: dict[str, list[Found]]) -> None:
        records = await self.store.load(list(wanted))
        self._note("load", list(records.values()))
        for key, takers in wanted.items():
            for found in takers:
                found(records[key])

    async def _commit(self, changes: Sequence[Change], sessions: Sequence[Session], committed: Committed) -> None:
        committed(await self.write(changes), sessions)

    def _note(self, use: Use, outcomes: Sequence[Loaded | Outcome]) -> None:
        """Remember whether the store works; if it has failed, try it until it works.

        It works again once a load has an answer, or a change is made: `stale` alone changes nothing. If a part of a
        batch works, as in a cluster that lacks a node, the store works.
        """
        works = "applied" in outcomes if use == "commit" else not all(isinstance(one, Failed) for one in outcomes)
        reason = next((outcome.reason for outcome in outcomes if isinstance(outcome, Failed)), "")
        if works:
            self._faults.pop(use, None)
        elif reason and use not in self._faults:
            self._faults[use] = reason
            logger.error("the session store has failed: %s", reason)
            if self._probing is None or self._probing.done():
                self._probing = self.do(self._probe())

    async def _probe(self) -> None:
        while self._faults:
            await sleep(PROBES)
            found = await self.store.load(PROBED)
            self._note("load", list(found.values()))
            answered = next((key for key, record in found.items() if not isinstance(record, Failed)), None)
            if "commit" in self._faults and answered is not None:
                await self._probe_writing(answered, found[answered])
        logger.info("the session store works again")

    async def _probe_writing(self, key: str, found: Loaded) -> None:
        """Write a record as large as those that could not be written, and remove it again."""
        size = self._too_large // np.float32().itemsize
        record = Record(
            key=key, incarnation=1, version=1, writes=(new_write(),), tensors={"probe": np.zeros(size, np.float32)}
        )
        before = stamp_of(found) if isinstance(found, bytes) else None
        outcomes = await self.store.commit([Change(key, before, encode(record))])
        if outcomes == ["applied"]:
            await self.store.commit([Change(key, record.stamp, None)])
        self._note("commit", outcomes)

    async def _sweep(self) -> None:
        while True:
            await sleep(SWEEPS)
            try:
                await self.store.sweep()
            except StoreError as error:
                logger.warning("expired sessions could not be removed from the store: %s", error)

    def do(self, work: Coroutine[Any, Any, None]) -> Task[None]:
        """Do some work beside; keep it from being collected meanwhile."""
        task = get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def named(change: Next) -> Session:
    """Return a session's next value with an id for the write."""
    return msgspec.structs.replace(change.after, writes=(new_write(), *change.before.writes[: WRITES - 1]))


def encoded(changes: Sequence[Next], sessions: Sequence[Session]) -> list[Change]:
    """Return the changes as the store takes them."""
    tensors = _tensors(changes)
    return [
        Change(change.before.key, change.before.stamp, encode(record_of(session, tensors.get(place, {}))))
        for place, (change, session) in enumerate(zip(changes, sessions, strict=True))
    ]


def _tensors(changes: Sequence[Next]) -> dict[int, dict[str, Any]]:
    """Return the tensors of each session that has a state, by the session's place."""
    places: dict[int, list[int]] = {}
    models = {id(change.model): change.model for change in changes}
    for place, change in enumerate(changes):
        if change.after.slot != INITIAL:
            places.setdefault(id(change.model), []).append(place)
    found: dict[int, dict[str, Any]] = {}
    for model, of_model in places.items():
        rows = models[model].engine.read(np.array([changes[place].after.slot for place in of_model]))
        for row, place in enumerate(of_model):
            found[place] = {name: values[row] for name, values in rows.items()}
    return found


def record_of(session: Session, tensors: dict[str, Any]) -> Record:
    """Return the record of a session with these tensors."""
    return Record(
        key=session.key,
        incarnation=session.incarnation,
        version=session.version,
        writes=session.writes,
        model=session.model,
        step=session.step,
        tensors=tensors,
        recent=session.recent,
        answers=session.answers.by_key,
        created=session.created,
        last_used=session.last_used,
        ended=session.ended,
        restored=session.restored,
    )


def session_of(record: Record, slot: int, owner: str) -> Session:
    """Return the session of a record whose tensors are in a slot."""
    return Session(
        key=record.key,
        incarnation=record.incarnation,
        version=record.version,
        model=record.model,
        step=record.step,
        slot=slot,
        recent=record.recent,
        answers=Answers.of(record.answers),
        created=record.created,
        last_used=record.last_used,
        restored=record.restored,
        ended=record.ended,
        owner=owner,
        writes=record.writes,
    )
