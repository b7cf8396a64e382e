"""Connections to Redis or Valkey, to one server or to a cluster; every command gets its own result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, SlotNotCoveredError

from arraylstm_serve.stores.redis import faults
from arraylstm_serve.stores.redis.address import Address

logger = logging.getLogger(__name__)

Results = list[Any]
"""What each command returned, or the exception that it got instead."""

REFRESH_SECONDS = 0.2
"""The least time between two looks at a cluster's topology."""


Words = tuple[str | bytes | int, ...]
"""A command and its arguments."""


class Call(NamedTuple):
    """A command, which returns a list.

    Attributes:
        key: a key that it touches; all its keys are in one slot.
        command: its words.
        parts: returns calls of one key each, whose results together are the result of this call.
    """

    key: str
    command: Words
    parts: Callable[[], list[Call]] = list


class Link(Protocol):
    """Connections to one server or one cluster. The client's own retries are off."""

    async def run(self, calls: Sequence[Call], seconds: float) -> Results:
        """Run commands where their keys are, and return within some seconds. Nothing is raised because of a server."""

    async def everywhere(self, *command: str) -> dict[str, Any]:
        """Run a command on each primary, and return the results by the servers' names; raises what a command raises."""

    async def refresh(self) -> None:
        """After a failure: find out anew where the servers are."""

    async def close(self) -> None:
        """Close all connections."""


def open_link(address: Address, timeout: float) -> Link:
    """Return the link to an address; nothing is sent yet.

    Args:
        address: where the servers are.
        timeout: seconds after which an answer no longer comes; a connection has half of them.
    """
    password, sentinel_password = address.secrets()
    options: dict[str, Any] = {
        "username": address.username,
        "password": password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout / 2,
        "protocol": 2,
        **_tls(address),
    }
    if address.kind == "cluster":
        return ClusterLink(address, options)
    # `run` ends in time by itself, and the client's own clock would cost as much as the rest of a call
    options |= {"db": address.db, "retry": Retry(NoBackoff(), 0), "socket_timeout": None}
    if address.kind == "single":
        host, port = address.nodes[0]
        return SingleLink(Redis(host=host, port=port, **options), address.shown)
    own: dict[str, Any] = {"username": address.parameters.get("sentinel_username"), "password": sentinel_password}
    own |= {"socket_timeout": timeout, "socket_connect_timeout": timeout / 2, "protocol": 2, **_tls(address)}
    sentinel = Sentinel(list(address.nodes), sentinel_kwargs=own, **options)  # type: ignore[no-untyped-call]
    return SingleLink(sentinel.master_for(address.service), address.shown, sentinel)


def _tls(address: Address) -> dict[str, Any]:
    if not address.tls:
        return {}
    files = {name: value for name, value in address.parameters.items() if name.startswith("ssl_")}
    return {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, **files}


class SingleLink:
    """Connections to one server. If it is one that Sentinel names, each new connection asks Sentinel who it is now."""

    def __init__(self, client: Redis, name: str, sentinel: Sentinel | None = None) -> None:
        self._client = client
        self._name = name
        self._sentinel = sentinel

    async def run(self, calls: Sequence[Call], seconds: float) -> Results:
        """See `Link.run`."""
        return await _results(self._run_each(calls), len(calls), seconds)

    async def _run_each(self, calls: Sequence[Call]) -> Results:
        """Run calls one after the other. A batch is one call here, and without a pipeline the client is faster."""
        return [await self._client.execute_command(*call.command) for call in calls]  # type: ignore[no-untyped-call]

    async def everywhere(self, *command: str) -> dict[str, Any]:
        """See `Link.everywhere`."""
        return {self._name: await self._client.execute_command(*command)}  # type: ignore[no-untyped-call]

    async def refresh(self) -> None:
        """See `Link.refresh`. Connections to a server that has become a replica are of no use."""
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """See `Link.close`."""
        await self._client.aclose()
        for one in self._sentinel.sentinels if self._sentinel else ():
            await one.aclose()


class ClusterLink:
    """Connections to a cluster's primaries. Each primary fails by itself."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        nodes = [ClusterNode(host, port) for host, port in address.nodes]
        retry = Retry(NoBackoff(), 0)
        self._client = RedisCluster(startup_nodes=nodes, require_full_coverage=False, retry=retry, **options)
        self._looking: asyncio.Future[None] | None = None
        self._looked = 0.0

    async def run(self, calls: Sequence[Call], seconds: float) -> Results:
        """See `Link.run`."""
        began = monotonic()
        try:
            async with asyncio.timeout(seconds):
                await self._client.initialize()
        except faults.ANY as error:
            return [error] * len(calls)
        nodes = [self._node(call.key) for call in calls]
        places: dict[str | None, list[int]] = {}
        for place, node in enumerate(nodes):
            places.setdefault(node.name if node else None, []).append(place)
        left = seconds - (monotonic() - began)
        runs = (self._run_on(nodes[own[0]], [calls[place] for place in own], left) for own in places.values())
        results: Results = [None] * len(calls)
        for own, outcome in zip(places.values(), await asyncio.gather(*runs), strict=True):
            for place, result in zip(own, outcome, strict=True):
                results[place] = result
        return results

    async def everywhere(self, *command: str) -> dict[str, Any]:
        """See `Link.everywhere`."""
        await self._client.initialize()
        return {node.name: await node.execute_command(*command) for node in self._client.get_primaries()}

    async def refresh(self) -> None:
        """See `Link.refresh`. Connections that work stay open."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)

    async def close(self) -> None:
        """See `Link.close`."""
        if self._looking is not None:
            self._looking.cancel()
        await self._client.aclose()

    async def _look(self) -> None:
        """Find out anew who has which slots. It goes on after the deadline of those who wait for it."""
        if monotonic() - self._looked < REFRESH_SECONDS:
            return
        try:
            await self._client.nodes_manager.initialize()
        except faults.ANY as error:
            logger.debug("the cluster's topology is not known: %s", type(error).__name__)
        self._looked = monotonic()

    def _node(self, key: str) -> ClusterNode | None:
        try:
            return self._client.get_node_from_key(key)
        except (KeyError, IndexError, RedisClusterException):
            return None

    async def _run_on(self, node: ClusterNode | None, calls: Sequence[Call], seconds: float) -> Results:
        if node is None:
            return [SlotNotCoveredError("no server of the cluster has the key's slot")] * len(calls)
        pipeline = self._client.pipeline()
        for call in calls:
            pipeline.execute_command(*call.command, target_nodes=node)
        results = await _results(pipeline.execute(raise_on_error=False), len(calls), seconds)
        for place, call in enumerate(calls):
            if faults.is_torn(results[place]) and (parts := call.parts()):
                results[place] = await self._run_parts(node, parts, seconds)
        return results

    async def _run_parts(self, node: ClusterNode, parts: list[Call], seconds: float) -> list[Any] | Exception:
        """Run a call key by key, as some of its keys have moved to another node and some have not."""
        results = await self._run_on(node, parts, seconds)
        failed = next((result for result in results if isinstance(result, Exception)), None)
        return failed or [one for result in results for one in result]


async def _results(execution: Awaitable[Results], count: int, seconds: float) -> Results:
    """Return what a pipeline returns; if it fails as a whole, its error for each of its commands."""
    try:
        async with asyncio.timeout(seconds):
            return await execution
    except TimeoutError:
        return [TimeoutError(f"no answer within {seconds:.3g} seconds")] * count
    except faults.ANY as error:
        return [error] * count
