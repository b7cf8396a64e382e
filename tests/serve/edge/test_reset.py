"""A client that resets its connection while it is refused."""

from __future__ import annotations

import asyncio
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined] # asyncio does not export it
from pathlib import Path

import pytest

from ..harness import Harness, listening

pytestmark = pytest.mark.anyio


async def test_a_refused_connection_ends_though_the_client_has_reset_it(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the system cannot shut it down for writing does not keep it open."""

    def not_connected(transport: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(_SelectorSocketTransport, "write_eof", not_connected)
    harness = Harness(bundle_path, request_timeout=0.3)
    async with listening(harness) as address:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        assert b" 408 " in await asyncio.wait_for(reader.read(), 5)
        writer.close()
