"""The bounds on what clients may have at once: pending requests, connections, long bodies; and on their rate."""

from __future__ import annotations

from asyncio import Future, get_running_loop, timeout
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import ceil
from time import perf_counter

from arraylstm_serve.api.problems import OVERLOADED, RATE_LIMITED, Problem, retry_later
from arraylstm_serve.fairness import Counts, Rounds, client_of, has_share_left

ROUNDING = 1e-6
"""Seconds by which sums of times may be wrong."""


class Bound:
    """Counts something that clients have, and refuses what is beyond a limit or a client's share of it.

    Args:
        what: what is counted, in words, such as "requests are pending".
        limit: the most that there may be.
        quota: the most that one client may have; None for no bound but its fair share of the limit.
    """

    def __init__(self, what: str, limit: int, quota: int | None = None) -> None:
        self._what = what
        self._limit = limit
        self._quota = quota
        self._held = Counts()

    @property
    def inside(self) -> int:
        """How many there are."""
        return self._held.total

    def enter(self, client: str) -> None:
        """Count one more of a client's; if the client is empty, it counts towards nobody's share.

        Raises:
            Problem: `overloaded`: the limit is reached, or the client's share of it.
        """
        inside = self._held.total
        if inside >= self._limit:
            raise retry_later(OVERLOADED, f"{inside} {self._what}; at most {self._limit} are allowed.")
        if client:
            held = self._held[client]
            if not has_share_left(held, inside, self._limit, self._quota):
                detail = f"{inside} {self._what}, {held} of them yours; you may have no more now."
                raise retry_later(OVERLOADED, detail)
        self._held.add(client, 1)

    def leave(self, client: str) -> None:
        """Count one less of a client's."""
        self._held.add(client, -1)


class Rates:
    """Bounds each client's requests a second. A client may save up what it may do in one second.

    Args:
        rate: requests a second; None for no bound.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._full: dict[str, float] = {}
        """When each client will have saved up everything again, by perf_counter; those that have are forgotten."""
        self._next_sweep = 0.0

    def spend(self, client: str, count: int = 1, *, after: int = 0) -> None:
        """Count requests of a client.

        Args:
            client: the client.
            count: how many.
            after: how many that belong to these have been let in, and so do not count against them.

        Raises:
            Problem: `rate_limited`: the client has used up what it may do now.
        """
        if self._rate is None:
            return
        now = perf_counter()
        if now > self._next_sweep:
            self._full = {name: full for name, full in self._full.items() if full > now}
            self._next_sweep = now + 1.0
        behind = max(0.0, self._full.get(client, 0.0) - now)
        over = behind - after / self._rate - 1.0
        if over > -ROUNDING:
            wait = max(1, ceil(over + ROUNDING))
            detail = f"You may send {self._rate:g} requests a second, and have sent more."
            raise retry_later(RATE_LIMITED, detail, seconds=wait)
        self._full[client] = now + behind + count / self._rate


async def _wait(granted: Future[None], patience: float, give_up: Callable[[bool], None]) -> None:
    """Wait at most `patience` seconds for a grant.

    Args:
        granted: done once it is granted.
        patience: seconds.
        give_up: called if nobody waits any more: with True if it was granted at the same moment, and so is to be given
            back; with False if not, as others may have waited behind this one.

    Raises:
        TimeoutError: it was not granted in that time.
    """
    try:
        async with timeout(patience):
            await granted
    except BaseException:
        came = granted.done() and not granted.cancelled()
        granted.cancel()
        give_up(came)
        raise


class Share:
    """The half of the places for pending requests that bulk requests and streams may use, clients in turn.

    They wait for places, where a single event would be refused. The other half is left to single events.

    Args:
        limit: the most pending requests.

    Attributes:
        size: how many places they may use together.
    """

    def __init__(self, limit: int) -> None:
        self.size = max(1, limit // 2)
        self._free = self.size
        self._waiting: Rounds[tuple[int, Future[None]]] = Rounds()

    @asynccontextmanager
    async def places(self, client: str, count: int, patience: float) -> AsyncIterator[None]:
        """Wait at most `patience` seconds for `count` places, at most `size`; hold them during the context.

        Raises:
            TimeoutError: the places did not become free in that time.
        """
        await self.take(client, count, patience)
        try:
            yield
        finally:
            self.give(count)

    async def take(self, client: str, count: int, patience: float) -> None:
        """Wait at most `patience` seconds for `count` places, at most `size`.

        Raises:
            TimeoutError: the places did not become free in that time.
        """
        if count <= self._free and not self._waiting:
            self._free -= count
            return
        granted: Future[None] = get_running_loop().create_future()
        self._waiting.append(client, (count, granted))
        await _wait(granted, patience, lambda granted: self.give(count if granted else 0))

    def give(self, count: int) -> None:
        """Give places back, and let in what waits for them."""
        self._free += count
        while self._waiting:
            wanted, granted = self._waiting.first()
            if not granted.done():
                if wanted > self._free:
                    return
                self._free -= wanted
                granted.set_result(None)
            self._waiting.popleft()


class Bodies:
    """Bounds the memory of long request bodies; a body waits until there is room, clients in turn.

    Args:
        limit: the most bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = Counts()
        self._waiting: Rounds[tuple[str, int, Future[None]]] = Rounds()

    async def take(self, client: str, size: int, patience: float) -> int:
        """Wait at most `patience` seconds until there is room for so many bytes, and take it.

        Returns:
            How many bytes to give back. A body that is larger than the limit takes all there is.

        Raises:
            Problem: `overloaded`: there was no room in that time.
        """
        size = min(size, self._limit)
        granted: Future[None] = get_running_loop().create_future()
        self._waiting.append(client, (client, size, granted))
        self._let_in()
        if granted.done():
            return size
        try:
            await _wait(granted, patience, lambda granted: self.give(client, size if granted else 0))
        except TimeoutError:
            detail = f"Long request bodies take all of the {self._limit} bytes that they may have together."
            raise retry_later(OVERLOADED, detail) from None
        return size

    def give(self, client: str, size: int) -> None:
        """Give bytes back, and let in what waits for them."""
        self._held.add(client, -size)
        self._let_in()

    def _let_in(self) -> None:
        """Give room to what waits for it. Who has a share already is passed over; who only lacks room is waited for."""
        passed_over: set[str] = set()
        while self._waiting:
            name, wanted, granted = self._waiting.first()
            if granted.done():
                self._waiting.popleft()
            elif name in passed_over:
                return
            elif not self._has_share(name, wanted):
                passed_over.add(name)
                self._waiting.appendleft(name, self._waiting.popleft())
            elif self._held.total + wanted > self._limit:
                return
            else:
                self._waiting.popleft()
                self._held.add(name, wanted)
                granted.set_result(None)

    def _has_share(self, client: str, size: int) -> bool:
        """Whether a client is within its share once it has so many bytes more; its first body always is."""
        held = self._held[client]
        return not held or has_share_left(held + size, self._held.total + size, self._limit)


class Connections:
    """Counts the open connections: for their addresses, and for the names whose keys they have shown.

    Args:
        limit: the most connections.
        quota: the most of one client; None for a fair share of the limit.
        proxy: tells whether an address is that of a proxy, which may have any number of connections.
    """

    def __init__(self, limit: int, quota: int | None, proxy: Callable[[str], bool]) -> None:
        self._proxy = proxy
        self.by_address = Bound("connections are open", limit, quota)
        self.by_name = Bound("connections are open for API keys", limit, quota)

    def open(self, address: str) -> Connection:
        """Count a connection.

        Args:
            address: the client's; empty if there is none.

        Raises:
            Problem: `overloaded`: there are too many connections, or too many of the address.
        """
        client = "" if self._proxy(address) else client_of(address)
        self.by_address.enter(client)
        return Connection(self, client)


class Connection:
    """An open connection, as it is counted."""

    __slots__ = ("_all", "_client", "_name")

    def __init__(self, connections: Connections, client: str) -> None:
        self._all = connections
        self._client = client
        self._name = ""

    def show(self, name: str) -> None:
        """Count the connection for the name whose key it has shown.

        Raises:
            Problem: `overloaded`: there are too many connections of that name; the connection is to be closed.
        """
        if name == self._name:
            return
        try:
            self._all.by_name.enter(name)
        except Problem as problem:
            problem.headers["Connection"] = "close"
            raise
        self._forget_name()
        self._name = name

    def close(self) -> None:
        """Count the connection no more."""
        self._forget_name()
        self._all.by_address.leave(self._client)

    def _forget_name(self) -> None:
        if self._name:
            self._all.by_name.leave(self._name)
            self._name = ""
