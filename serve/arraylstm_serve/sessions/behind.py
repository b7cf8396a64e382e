"""Write-behind: answers leave first, and the store gets the newest value of each session a little later."""

from __future__ import annotations

import logging
from asyncio import Event, get_running_loop, sleep
from collections import deque
from collections.abc import Callable, Container
from itertools import islice
from math import inf

from arraylstm_serve.sessions.keeper import PROBES, Keeper, Next, encoded
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.session import Session
from arraylstm_serve.sessions.table import Table
from arraylstm_serve.stores.base import Failed
from arraylstm_serve.stores.record import Stamp, stamp_of

BATCH = 256
"""The most sessions written at once."""

PAUSE = 0.02
"""Seconds between two batches, so that a session that changes often is written once for several changes."""

logger = logging.getLogger(__name__)


class WriteBehind:
    """Knows which sessions the store does not have in their newest value, and writes them.

    Args:
        keeper: writes.
        table: the sessions.
        busy: the keys of sessions that have a turn.
        choose: returns the model of a session.
        most: how many sessions may wait to be written; further answers wait until fewer do.

    Attributes:
        most: see above.
        unsaved: the newest value of each session that waits, by key.
    """

    def __init__(
        self, keeper: Keeper, table: Table, busy: Container[str], choose: Callable[[Session], Model], most: int
    ) -> None:
        self.unsaved: dict[str, Session] = {}
        self._stored: dict[str, Stamp | None] = {}
        """The stamp that the store has of each session that waits; None if it has none."""
        self._dropped: set[str] = set()
        """The sessions that another server has changed, until they are out of the table."""
        self._sent: dict[str, set[int]] = {}
        """The ids of writes of each session that waits, which the store may have made unnoticed."""
        self._keeper = keeper
        self._table = table
        self._busy = busy
        self._choose = choose
        self.most = most
        self._wake = Event()
        self._waiting: deque[tuple[int, Callable[[], None], Callable[[], None]]] = deque()
        self._failing = False
        self._end = inf
        """When to give up writing, by the event loop's clock, once the server is to end."""
        self._writing = keeper.do(self._write())

    def note(self, before: Session, after: Session) -> None:
        """Remember that a session has changed, unless the store has another server's value, which counts."""
        if before.key in self._dropped:
            return
        self._stored.setdefault(before.key, before.stamp)
        self.unsaved[after.key] = after
        self._wake.set()

    def when_room(self, count: int, answer: Callable[[], None], refuse: Callable[[], None]) -> None:
        """Answer now, or once so few sessions wait to be written that so many more may; they are at most `most`.

        While the store fails nobody knows when that will be, so then it refuses.
        """
        if self._has_room(count) and not self._waiting:
            answer()
        elif self._failing:
            refuse()
        else:
            self._waiting.append((count, answer, refuse))

    def _has_room(self, count: int) -> bool:
        return len(self.unsaved) + count <= self.most

    async def close(self, patience: float) -> None:
        """Write what waits; if the store does not take it, try for `patience` seconds."""
        self._end = get_running_loop().time() + patience
        self._wake.set()
        await self._writing

    async def _write(self) -> None:
        while self.unsaved or self._waiting or self._end == inf:
            await self._wake.wait()
            self._wake.clear()
            while self.unsaved:
                self._failing = not await self._try_some()
                if self._failing:
                    while self._waiting:
                        self._waiting.popleft()[2]()
                    if get_running_loop().time() + PROBES > self._end:
                        logger.error("%d sessions could not be written before the end", len(self.unsaved))
                        return
                    await sleep(PROBES)
                elif self._end == inf and len(self.unsaved) < BATCH:
                    await sleep(PAUSE)

    async def _try_some(self) -> bool:
        """Write some sessions; return whether that went well. An unforeseen error is logged, and tried again."""
        try:
            return await self._write_some()
        except Exception:
            logger.exception("sessions could not be written")
            return False

    async def _write_some(self) -> bool:
        """Write some sessions; return whether the store takes them."""
        sessions = list(islice(self.unsaved.values(), BATCH))
        newest = [Next(session, session, self._choose(session)) for session in sessions]
        changes = [change._replace(expected=self._stored[change.key]) for change in encoded(newest, sessions)]
        for session in sessions:
            self._sent.setdefault(session.key, set()).add(session.writes[0])
        outcomes = await self._keeper.write(changes)
        for session, outcome in zip(sessions, outcomes, strict=True):
            if outcome == "applied":
                self._written(session)
            elif outcome == "stale" and not await self._is_own(session):
                self._give_up(session)
        while self._waiting and self._has_room(self._waiting[0][0]):
            self._waiting.popleft()[1]()
        return not any(isinstance(outcome, Failed) for outcome in outcomes)

    def _written(self, session: Session) -> None:
        """Forget a session that the store has, unless it has changed again."""
        if self.unsaved[session.key] is session:
            self._forget(session.key)
        else:
            self._stored[session.key] = session.stamp
            self._sent[session.key].clear()

    async def _is_own(self, session: Session) -> bool:
        """Whether the store has nothing that another server wrote; then the next write follows what it has.

        It may have a write of this server's whose answer was lost, an earlier one if it has lost some, or no record: a
        session that another server removed would have left one.
        """
        found = (await self._keeper.store.load([session.key]))[session.key]
        if isinstance(found, Failed):
            return True  # nobody knows yet
        stamp = None if found is None else stamp_of(found)
        if stamp is not None and stamp.write not in {*self._sent[session.key], *session.writes}:
            return False
        self._stored[session.key] = stamp
        return True

    def _give_up(self, session: Session) -> None:
        """Drop this server's value of a session that another server has changed: the store's is the one that counts."""
        self._keeper.lost += 1
        logger.error(
            "session %s was changed by another server, so steps that were answered here are lost; --ack memory needs "
            "all requests of a session to reach one server",
            session.key,
        )
        self._forget(session.key)
        self._dropped.add(session.key)
        self._keeper.do(self._unload(session.key))

    async def _unload(self, key: str) -> None:
        """Take a session out of the table once nothing goes on with it. The writer must not wait for that.

        A turn of the session may itself wait until the writer has made room.
        """
        while key in self._busy:
            await sleep(PAUSE)
        self._dropped.discard(key)
        self._table.unload(key)

    def _forget(self, key: str) -> None:
        del self.unsaved[key], self._stored[key], self._sent[key]
