"""Fill a store with sessions through the store's own code, and draw whose requests come."""

import re
from asyncio import create_task
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from bundles import Served
from events import BULK, SESSION
from load import post
from msgspec.structs import replace
from numpy.typing import NDArray
from servers import Server

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import row_shapes
from arraylstm_serve.stores.base import Change
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.record import Record, encode, new_write

BATCH = 1000
"""Records written at once."""

PATTERNS = 64
"""Different tensors and labels; the sessions share them."""

RECENT = 64
"""Labels of a session."""

_METRIC = re.compile(r"^(\w+(?:\{.*?\})?) (\S+)$", re.MULTILINE)

Places = NDArray[np.int64]


def name(place: int) -> str:
    """Return a session's id."""
    return f"session-{place:09}"


def patterns(path: Path) -> list[Record]:
    """Return records of a bundle's model, to be given names."""
    bundle = Bundle.load(path)
    shapes = row_shapes(bundle.manifest.states, len(bundle.vocabulary))
    draw = np.random.default_rng(0)
    return [
        Record(
            key="",
            incarnation=1,
            version=80,
            writes=tuple(new_write() for _ in range(16)),
            model=bundle.fingerprint,
            step=80,
            tensors={tensor: draw.random(shape, np.float32) for tensor, shape in shapes.items()},
            recent=tuple(draw.integers(0, len(bundle.vocabulary), RECENT).tolist()),
            created=1.0,
            last_used=1.0,
        )
        for _ in range(PATTERNS)
    ]


async def fill(url: str, model: Served, places: range, ttl: float) -> None:
    """Write a new record for each place; the next batch is encoded while one is written."""
    pool = patterns(model.bundle)
    store = await open_store(url, durable=True, ttl=ttl, timeout=60)
    writing = create_task(store.commit([]))
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        changes = [Change(name(place), None, _named(pool[place % PATTERNS], place)) for place in batch]
        assert set(await writing) <= {"applied"}
        writing = create_task(store.commit(changes))
    assert set(await writing) <= {"applied"}
    await store.close()


def _named(pattern: Record, place: int) -> bytes:
    return encode(replace(pattern, key=name(place), incarnation=new_write()))


def zipf_order(sessions: int) -> Places:
    """Return all sessions, the one that comes most often first."""
    return np.random.default_rng(2).permutation(sessions)


def zipf(sessions: int, count: int, exponent: float) -> Places:
    """Draw sessions: the one in place r of `zipf_order`, from 1, comes r ** -exponent as often as the first."""
    draw = np.random.default_rng(1)
    weights = np.cumsum(np.arange(1, sessions + 1) ** -exponent)
    ranks = np.searchsorted(weights, draw.random(count) * weights[-1])
    return zipf_order(sessions)[ranks]


def requests(places: Places, num_items: int) -> list[bytes]:
    """Return a request with one event for each place."""
    items = np.random.default_rng(3).integers(0, num_items, len(places)).tolist()
    return [post(SESSION.format(name(place)), {"items": [item]}) for place, item in zip(places.tolist(), items)]


def touch(server: Server, places: Sequence[int]) -> None:
    """Send an event to each of these sessions, so that the server holds them."""
    for body in _bulks(places):
        status, answer = server.request("POST", BULK, body)
        assert status == 200, answer[:200]
        assert b'"status"' not in answer[:200], answer[:200]


def _bulks(places: Sequence[int]) -> Iterator[bytes]:
    for start in range(0, len(places), 500):
        batch = places[start : start + 500]
        whole = post(BULK, {"events": [{"session_id": name(place), "items": [1], "top_k": 1} for place in batch]})
        yield whole.partition(b"\r\n\r\n")[2]


def counted(server: Server) -> dict[str, float]:
    """Return the server's metrics."""
    return {metric: float(value) for metric, value in _METRIC.findall(server.get("/metrics")[1].decode())}
