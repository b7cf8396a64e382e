"""The service: everything that one server process serves, and the one door to it."""

from __future__ import annotations

import time
from asyncio import Future, get_running_loop
from collections import ChainMap, deque
from collections.abc import Awaitable, Callable
from typing import Any

from arraylstm_serve import __version__
from arraylstm_serve.api.problems import Problem
from arraylstm_serve.api.schemas import Stats, Unready, encode
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.counters import Counters
from arraylstm_serve.engine.base import Engine, row_bytes
from arraylstm_serve.heavy import Admission, HeavyWork
from arraylstm_serve.proxies import Proxies
from arraylstm_serve.sessions.behind import WriteBehind
from arraylstm_serve.sessions.commands import Caller, Command
from arraylstm_serve.sessions.keeper import Keeper
from arraylstm_serve.sessions.limits import Bodies, Bound, Connections, Rates, Share
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.queue import Queue
from arraylstm_serve.sessions.rendering import render_info
from arraylstm_serve.sessions.session import Session
from arraylstm_serve.sessions.state_file import OVERHEAD
from arraylstm_serve.sessions.stored_queue import StoredQueue
from arraylstm_serve.sessions.table import Table
from arraylstm_serve.sessions.turn import Reply, Turn
from arraylstm_serve.settings import Settings
from arraylstm_serve.stores.base import Clock, Store, steady_clock


class Service:
    """The sessions and their model. Call its methods from the event loop.

    Args:
        bundle: the model, verified.
        engine: an engine with `slot_count(settings)` rows.
        settings: the bounds.
        clock: returns seconds since the epoch, and never goes back.

    Attributes:
        counters: the server's counters.
        sessions: the table of sessions.
        model: the model that answers.
        heavy: does long work in pieces, clients in turn.
        admission: lets events begin, clients in turn.
        rates: the bound on each client's requests a second.
        bulk_share: the places for pending requests that bulk requests may use.
        keeper: reads and writes the store of sessions; None if they are kept in memory alone.
        bodies: the memory for long request bodies.
        connections: the open connections.
        draining: whether the server is to get no more requests, for an operator said so or it stops.
        stopping: whether the server has begun to stop.
    """

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.draining = False
        self.stopping = False
        self.counters = Counters()
        self.bulk_share = Share(settings.max_pending)
        self.bodies = Bodies(settings.max_body_bytes)
        self.connections = Connections(
            settings.max_connections, settings.quota_connections, Proxies(settings.forwarded_allow_ips).include
        )
        self._clock = clock or steady_clock()
        self._began = self._clock()
        self.heavy = HeavyWork()
        self.admission = Admission()
        self.rates = Rates(settings.quota_rate)
        self._pending = Bound("requests are pending", settings.max_pending, settings.quota_pending)
        self._waiting: dict[str, deque[Turn]] = {}
        self.sessions = Table(
            self.counters,
            self._clock,
            release=lambda session: self._models[session.model].slots.release(session.slot),
            busy=self._waiting,
            max_sessions=settings.max_sessions,
            ttl=settings.session_ttl,
            max_answer_bytes=settings.max_answer_bytes,
            quota_sessions=settings.quota_sessions,
            quota_answer_bytes=settings.quota_answer_bytes,
        )
        self.keeper: Keeper | None = None
        self._behind: WriteBehind | None = None
        self._queue = self._make_queue(Queue, self._waiting)
        self.model = Model(bundle, engine, settings, self.counters, lambda walks: self._queue.finish(walks))
        self._models = {self.model.fingerprint: self.model}
        """The models that sessions have slots of, by fingerprint."""

    def _make_queue(self, kind: Callable[..., Queue], waiting: dict[str, deque[Turn]], **more: Any) -> Queue:
        return kind(
            self.sessions,
            waiting,
            self.counters,
            self._pending,
            self.heavy,
            self._clock,
            choose=lambda session: self.model,
            max_sessions=self.settings.max_sessions,
            max_turns=self.settings.max_session_pending,
            **more,
        )

    def keep(self, store: Store) -> None:
        """Keep the sessions in a store from now on; no request has come yet."""
        self.keeper = Keeper(store)
        if self.settings.ack == "memory":
            most = min(self.settings.max_unsaved, max(1, self.settings.max_sessions // 2))
            self._behind = WriteBehind(self.keeper, self.sessions, self._waiting, lambda session: self.model, most)
            self.sessions.busy = ChainMap[str, Any](self._waiting, self._behind.unsaved)
        self._queue = self._make_queue(StoredQueue, self._waiting, keeper=self.keeper, behind=self._behind)

    async def close(self) -> None:
        """Let go of the store, if there is one, once it has everything."""
        if self._behind is not None:
            await self._behind.close(self.settings.shutdown_timeout)
        if self.keeper is not None:
            await self.keeper.close()

    @property
    def fault(self) -> str:
        """Why requests cannot be answered now; empty if they can."""
        return "" if self.keeper is None else self.keeper.fault

    @property
    def unready(self) -> Unready | None:
        """Why the server should get no requests now; None if it should."""
        return "draining" if self.draining else "store unavailable" if self.fault else None

    @property
    def unsaved(self) -> int | None:
        """How many sessions the store does not have in their newest value; None if answers wait until it has."""
        return None if self._behind is None else len(self._behind.unsaved)

    def perform(self, command: Command, caller: Caller, reply: Reply) -> None:
        """Carry out a command when its turn comes.

        Raises:
            Problem: the command is refused at once; a later refusal goes to the reply.
        """
        try:
            self._queue.submit(command, caller, reply)
        except Problem as problem:
            if command.counted_as == "events":
                self.refused_event(problem, caller.arrived)
            raise

    def refused_event(self, problem: Problem, arrived: float) -> None:
        """Count an event that is refused before its turn.

        Args:
            problem: the refusal.
            arrived: when the event arrived, by perf_counter.
        """
        self.counters.event(problem.kind.code, time.perf_counter() - arrived)

    def ask(self, command: Command, caller: Caller) -> Awaitable[bytes]:
        """Carry out a command when its turn comes, and return its answer.

        Raises:
            Problem: the command is refused at once; a later refusal is raised when the answer is awaited.
        """
        reply: Future[bytes] = get_running_loop().create_future()
        self.perform(command, caller, reply)
        return reply

    def describe(self, session_id: str, session: Session) -> bytes:
        """Return an encoded SessionInfo."""
        return render_info(session_id, session, self.settings.session_ttl)

    @property
    def largest_state(self) -> int:
        """The most bytes that the file of a session's state can have."""
        return row_bytes(self.model.engine.shapes) + OVERHEAD

    @property
    def pending(self) -> int:
        """How many requests wait or run."""
        return self._pending.inside

    def stats(self) -> bytes:
        """Return the current Stats, encoded."""
        self.sessions.expire()
        counters, model = self.counters, self.model
        return encode(
            Stats(
                version=__version__,
                model=model.fingerprint,
                cell=model.bundle.manifest.model.cell,
                num_items=len(model.vocabulary),
                provider=model.engine.provider,
                uptime_seconds=self._clock() - self._began,
                draining=self.draining,
                sessions=len(self.sessions),
                max_sessions=self.settings.max_sessions,
                pending=self.pending,
                requests_total=counters.requests.total(),
                events_total=counters.changes["events"],
                batches_total=counters.batch_rows.count,
                steps_total=int(counters.batch_rows.total),
                busy_seconds_total=counters.run_seconds.total,
                unknown_items_total=counters.unknown_items,
                replays_total=counters.replays,
                conflicts_total=counters.conflicts,
                evicted=counters.evicted,
            )
        )
