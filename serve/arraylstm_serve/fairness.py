"""Clients in turn, and shares of what there is: no client gets in the way of the others, however much it asks for.

A client is whoever a bound counts together: the name of an API key, or an address where no keys are asked for.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from ipaddress import IPv6Address, IPv6Network
from typing import Generic, TypeVar

Entry = TypeVar("Entry")

GREED = 7
"""How much of a bound one client may hold, in multiples of what is left free.

This is the rule of dynamic thresholds (Choudhury and Hahne, 1998). A client alone gets seven eighths, whatever it does;
the more others hold, the smaller the share is.
"""

STALE = 4
"""How many times longer than its live part a heap may grow before it is built again."""


class Rounds(Generic[Entry]):
    """A queue that serves clients in turn; the entries of one client are first in, first out."""

    __slots__ = ("_clients", "_length", "_of_client")

    def __init__(self) -> None:
        self._of_client: dict[str, deque[Entry]] = {}
        self._clients: deque[str] = deque()
        """The clients with entries, the next one first."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, client: str, entry: Entry) -> None:
        """Put an entry behind the client's others."""
        entries = self._of_client.get(client)
        if entries is None:
            self._of_client[client] = deque((entry,))
            self._clients.append(client)
        else:
            entries.append(entry)
        self._length += 1

    def appendleft(self, client: str, entry: Entry) -> None:
        """Put an entry before the client's others; the client's turn comes as it would have."""
        entries = self._of_client.get(client)
        if entries is None:
            self.append(client, entry)
        else:
            entries.appendleft(entry)
            self._length += 1

    def first(self) -> Entry:
        """Return the entry that `popleft` would take.

        Raises:
            IndexError: there is no entry.
        """
        return self._of_client[self._clients[0]][0]

    def popleft(self) -> Entry:
        """Take the next client's first entry; then it is another client's turn.

        Raises:
            IndexError: there is no entry.
        """
        client = self._clients[0]
        entries = self._of_client[client]
        entry = entries.popleft()
        if not entries:
            del self._of_client[client]
            self._clients.popleft()
        elif len(self._clients) > 1:
            self._clients.rotate(-1)
        self._length -= 1
        return entry


class Counts:
    """How much of something each client holds.

    Attributes:
        total: how much all of them hold together.
    """

    def __init__(self) -> None:
        self.total = 0
        self._of_client: dict[str, int] = {}

    def __getitem__(self, client: str) -> int:
        return self._of_client.get(client, 0)

    def add(self, client: str, amount: int) -> int:
        """Count that a client holds so much more, or less if the amount is negative; return what it holds now."""
        self.total += amount
        held = self._of_client.get(client, 0) + amount
        if held:
            self._of_client[client] = held
        else:
            self._of_client.pop(client, None)
        return held


class Holdings(Counts):
    """Counts that know which client holds most."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[int, str]] = []
        """The negative amount of each client; entries that are not true any more are dropped when they come up."""

    def add(self, client: str, amount: int) -> int:
        """See `Counts.add`."""
        held = super().add(client, amount)
        if not (amount and held):
            return held
        heappush(self._heap, (-held, client))
        if len(self._heap) > STALE * (len(self._of_client) + 16):
            self._heap = [(-amount, name) for name, amount in self._of_client.items()]
            heapify(self._heap)
        return held

    def largest(self) -> str:
        """Return the client that holds most.

        Raises:
            IndexError: nobody holds anything.
        """
        heap = self._heap
        while self._of_client.get(heap[0][1]) != -heap[0][0]:
            heappop(heap)
        return heap[0][1]


def client_of(address: str) -> str:
    """Return the client that an address belongs to: itself, or its /64 network, which one IPv6 client has to itself."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(IPv6Network((found, 64), strict=False))


def client_at(peer: tuple[str, int] | None) -> str:
    """Return the client at the other end of a connection, as uvicorn and ASGI name it; empty if it has no address."""
    return client_of(peer[0]) if peer else ""


def has_share_left(held: int, total: int, limit: int, quota: int | None = None) -> bool:
    """Whether a client may hold more.

    Args:
        held: what it holds.
        total: what all clients hold.
        limit: the bound on the total.
        quota: the bound on each client; None for a fair share.
    """
    return held <= GREED * (limit - total) and (quota is None or held < quota)
