"""Opening the store that `--sessions` names."""

from __future__ import annotations

from pathlib import Path

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.base import Clock, Store, steady_clock
from arraylstm_serve.stores.memory import MemoryStore
from arraylstm_serve.stores.sqlite import SqliteStore
from arraylstm_serve.text import shown

ALLOWED = (
    "memory, sqlite:PATH, redis://HOST:PORT/DB or valkey://...; with TLS rediss:// or valkeys://; +cluster, +sentinel"
)
"""What `--sessions` may be, for messages."""

DISK = 5
"""How many times as long as a server a disk may take to answer."""


def is_shared(text: str) -> bool:
    """Whether a text names a store that several servers may use at once."""
    return text.startswith(("redis", "valkey"))


async def open_store(
    text: str, *, durable: bool, ttl: float, timeout: float = 2.0, clock: Clock | None = None
) -> Store:
    """Open the store that a text names.

    Args:
        text: `memory`, `sqlite:PATH`, or the URL of Redis or Valkey.
        durable: whether answers wait for their commits (`--ack store`).
        ttl: seconds after its last write that a record lives.
        timeout: seconds after which a call to a server has failed; a file has five times as long.
        clock: returns seconds since the epoch, for stores that keep the time themselves; None for one that never jumps.

    Raises:
        StartupError: there is no such store, or it cannot be used. The message holds no password.
    """
    clock = clock or steady_clock()
    kind, _, rest = text.partition(":")
    if text == "memory":
        return MemoryStore(ttl, clock)
    if kind == "sqlite":
        if not rest or rest.startswith("//"):
            raise StartupError(f"The session store {shown(text)} names no file; write sqlite:PATH.")
        return await SqliteStore.open(Path(rest), durable=durable, ttl=ttl, timeout=DISK * timeout, clock=clock)
    if is_shared(text) and rest.startswith("//"):
        return await _open_redis(text, durable=durable, ttl=ttl, timeout=timeout)
    raise StartupError(f"The session store is {shown(kind)}; allowed are {ALLOWED}.")


async def _open_redis(text: str, *, durable: bool, ttl: float, timeout: float) -> Store:
    from arraylstm_serve.stores.redis.address import parse

    address = parse(text)
    try:
        from arraylstm_serve.stores.redis.store import RedisStore
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("redis"):
            raise
        remedy = 'pip install "arraylstm-serving[redis]"'
        raise StartupError(f"The session store {address.shown} needs the package redis: {remedy}.") from None
    return await RedisStore.open(address, durable=durable, ttl=ttl, timeout=timeout)
