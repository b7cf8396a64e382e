"""Attacks with connections: idle, short, half-closed, or TLS that only begins; and `floor`, which is no attack."""

import asyncio
from asyncio import sleep
from contextlib import suppress
from itertools import count

from hostile.registry import attack, crowd
from hostile.wire import EVENTS, HOST, Target

_LONG = 3600.0
_HALF_HELLO = bytes.fromhex("1603010200010001fc0303")  # the first bytes of a TLS handshake of 512 bytes


@attack(keys=(False, True))
async def floor(target: Target) -> None:
    """Nobody attacks: a process keeps the clients' core busy and does not touch the server."""
    while True:
        await sleep(0)


@attack()
async def idle_connections(target: Target) -> None:
    """As many connections as the server allows (1,024) are opened, and say nothing."""

    async def client(_: int) -> None:
        async with target.connected() as connection:
            await connection.receive()

    await crowd(1024, client)


@attack()
async def churn(target: Target) -> None:
    """A hundred clients connect and disconnect as fast as they can."""

    async def client(_: int) -> None:
        async with target.connected():
            pass

    await crowd(100, client)


@attack()
async def half_closed(target: Target) -> None:
    """Five hundred clients send an event and the end of their side, then stay without reading for two seconds."""
    numbers = count()

    async def client(number: int) -> None:
        async with target.connected() as connection:
            path = EVENTS.format(f"half-{next(numbers) % 1000}")
            await connection.send(target.post(path, {"items": target.items[:1]}))
            connection.end()
            await sleep(2)

    await crowd(500, client)


@attack(tls=True)
async def tls_handshakes(target: Target) -> None:
    """A hundred clients make TLS handshakes as fast as they can, and hang up."""
    context = target.context()

    async def client(_: int) -> None:
        writer = (await asyncio.open_connection(HOST, target.port, ssl=context))[1]
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    await crowd(100, client)


@attack(tls=True)
async def tls_half_open(target: Target) -> None:
    """Eight hundred clients send the first bytes of a TLS handshake, and then nothing."""

    async def client(_: int) -> None:
        async with target.connected() as connection:
            await connection.send(_HALF_HELLO)
            await connection.receive()

    await crowd(800, client)
