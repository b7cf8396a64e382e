"""The store in Redis or Valkey: `--sessions redis://...` and its relatives.

A record is one key, `{PREFIX:BUCKET}:KEY`. What is in braces decides about the slot in a cluster, so all records of a
bucket are changed by one call of a function. A commit whose outcome is unknown is sent again: the function knows a
write that has been made by its id, so the second answer is certain, however late the first command arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self
from zlib import crc32

from redis.exceptions import BusyLoadingError

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.base import Change, Failed, Loaded, Outcome, Store
from arraylstm_serve.stores.redis import faults
from arraylstm_serve.stores.redis.address import Address
from arraylstm_serve.stores.redis.checks import prepare, refusal, text
from arraylstm_serve.stores.redis.function import COMMIT, LIBRARY
from arraylstm_serve.stores.redis.links import Call, Link, Results, Words, open_link
from arraylstm_serve.text import shortened

BUCKETS = 256
"""How many groups of records there are. More would spread better over a large cluster, fewer make larger groups."""

PAUSE = 0.02
"""Seconds before the first repetition; each further pause is twice as long."""

REASON = 200
"""Most characters of an error that a reason shows."""

logger = logging.getLogger(__name__)


class RedisStore(Store):
    """Keeps records in Redis 7.0 or later, or Valkey. `open` makes one.

    Every call ends within `timeout` seconds: what fails and may pass is tried again until then.
    """

    shared = True

    def __init__(self, address: Address, link: Link, *, ttl: float, timeout: float, description: str) -> None:
        super().__init__(ttl)
        self._address = address
        self._link = link
        self._timeout = timeout
        self._description = description

    @classmethod
    async def open(cls, address: Address, *, durable: bool, ttl: float, timeout: float) -> Self:
        """Connect, check the server and load our function.

        Args:
            address: where the server is.
            durable: whether answers wait for their commits.
            ttl: seconds after its last write that a record lives.
            timeout: seconds after which a call has failed; the start may take five times as long.

        Raises:
            StartupError: the server cannot be used; the message has the remedy.
        """
        try:
            link = open_link(address, timeout / 2)
        except (*faults.ANY, ValueError) as error:
            raise refusal(address.shown, error, address.without_secrets(str(error))) from None
        try:
            async with asyncio.timeout(5 * timeout):
                servers, warnings = await _prepared(link, address.shown, durable=durable)
        except faults.ANY as error:
            await link.close()
            words = address.without_secrets(shortened(str(error) or "it does not answer", REASON))
            raise refusal(address.shown, error, words) from None
        except StartupError:
            await link.close()
            raise
        store = cls(address, link, ttl=ttl, timeout=timeout, description=f"{servers} at {address.shown}")
        store.warnings = warnings
        return store

    def describe(self) -> str:
        """See `Store.describe`."""
        return self._description

    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        found = await self._each(keys, lambda own: ("MGET", *map(self._name, own)))
        values = {key: found[key][0] for key in keys}
        return {key: self._failed(one) if isinstance(one, Exception) else one for key, one in values.items()}

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        by_key = {change.key: change for change in changes}
        ttl = max(1, round(self.ttl * 1000))

        def command(own: Sequence[str]) -> Words:
            arguments = [part for key in own for part in _arguments(by_key[key])]
            return ("FCALL", COMMIT, len(own), *map(self._name, own), ttl, *arguments)

        found = await self._each(list(by_key), command)
        return [self._outcome(*found[change.key]) for change in changes]

    async def _close(self) -> None:
        await self._link.close()

    async def _each(
        self, keys: Sequence[str], command: Callable[[Sequence[str]], Words]
    ) -> dict[str, tuple[Any, bool]]:
        """Run a command that returns a list with a result for each of its keys.

        Returns:
            For each key its result or exception, and whether the command may have been carried out unnoticed.
        """
        groups = self._groups(keys)
        calls = [Call(self._name(own[0]), command(own), partial(self._parts, own, command)) for own in groups]
        results, lost = await self._run(calls)
        found: dict[str, tuple[Any, bool]] = {}
        for place, (own, result) in enumerate(zip(groups, results, strict=True)):
            each = [result] * len(own) if isinstance(result, Exception) else result
            found |= {key: (one, place in lost) for key, one in zip(own, each, strict=True)}
        return found

    def _parts(self, keys: Sequence[str], command: Callable[[Sequence[str]], Words]) -> list[Call]:
        """Return a call for each key."""
        return [Call(self._name(key), command([key])) for key in keys]

    def _groups(self, keys: Sequence[str]) -> list[list[str]]:
        """Return the keys, those together that one call may touch.

        In a cluster a group is a bucket. Elsewhere all keys are one group: with `appendfsync always` a server syncs
        once for a call, but several times for as many bytes in a pipeline.
        """
        groups: dict[int, list[str]] = {}
        for key in keys:
            groups.setdefault(_bucket(key) if self._address.kind == "cluster" else 0, []).append(key)
        return list(groups.values())

    def _name(self, key: str) -> str:
        """Return a key's name in Redis."""
        return f"{{{self._address.prefix}:{_bucket(key)}}}:{key}"

    async def _run(self, calls: Sequence[Call]) -> tuple[Results, set[int]]:
        """Run calls, and again those whose errors may pass, until the time is over.

        Returns:
            The results, in the order of the calls; and which calls may have been carried out unnoticed.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._timeout, PAUSE
        results: Results = [None] * len(calls)
        waiting, lost = list(range(len(calls))), set[int]()
        while True:
            seconds = min(deadline - loop.time(), self._timeout / 2)
            latest = await self._link.run([calls[place] for place in waiting], seconds)
            for place, result in zip(waiting, latest, strict=True):
                results[place] = result
                lost |= {place} if faults.is_lost(result) else set()
            waiting = [place for place in waiting if faults.passes(results[place])]
            if waiting and loop.time() + pause < deadline:
                await asyncio.sleep(pause)
                await self._recover([results[place] for place in waiting], deadline)
            if not waiting or loop.time() + pause >= deadline:
                return results, lost
            pause *= 2

    async def _recover(self, errors: Sequence[Exception], deadline: float) -> None:
        """Do what helps against errors: load the function, or look where the servers are now."""
        try:
            async with asyncio.timeout_at(deadline):
                if not all(map(faults.is_missing, errors)):
                    await self._link.refresh()
                if any(map(faults.is_missing, errors)):
                    await self._link.everywhere("FUNCTION LOAD", "REPLACE", LIBRARY)
        except faults.ANY as error:
            logger.debug("the session store has not recovered: %s", self._words(error))

    def _outcome(self, result: Any, unknown: bool) -> Outcome:
        """Return the outcome that the function returned for a change."""
        if result == 1:
            return "applied"
        if result == 0:
            return "stale"
        return self._failed(result, unknown=unknown)

    def _failed(self, error: object, *, unknown: bool = False) -> Failed:
        return Failed(self._words(error), unknown)

    def _words(self, error: object) -> str:
        """Return what went wrong, without passwords."""
        words = text(error) or type(error).__name__
        return self._address.without_secrets(shortened(words, REASON))


def _bucket(key: str) -> int:
    return crc32(key.encode()) % BUCKETS


async def _prepared(link: Link, shown: str, *, durable: bool) -> tuple[str, list[str]]:
    """Prepare the servers; wait for one that is still reading its data."""
    while True:
        try:
            return await prepare(link, shown, durable=durable)
        except BusyLoadingError:
            await asyncio.sleep(5 * PAUSE)


def _arguments(change: Change) -> tuple[bytes, bytes]:
    """Return what the function takes for a change: the expected stamp and the record."""
    return b"" if change.expected is None else change.expected.packed(), change.record or b""
