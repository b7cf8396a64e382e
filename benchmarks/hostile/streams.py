"""Attacks with WebSockets and with handshakes for them."""

from asyncio import gather, sleep

from hostile.registry import attack, crowd
from hostile.wire import CONTINUATION, PING, SMALL_WINDOW, TEXT, Target, frame, packed

_HANDSHAKES = 100
_STREAMS = 50
_FRAMES = 2000  # in one write


async def _knock(target: Target, handshake: bytes) -> None:
    """Send a handshake that is none, and wait for what comes."""

    async def client(_: int) -> None:
        async with target.connected() as connection:
            await connection.ask(handshake)

    await crowd(_HANDSHAKES, client)


@attack()
async def handshake_cookie(target: Target) -> None:
    """A hundred clients send WebSocket handshakes with a cookie of 9 KB, one after the other."""
    await _knock(target, target.handshake("Cookie: " + "a" * 9000) + b"\r\n")


@attack()
async def handshake_post(target: Target) -> None:
    """A hundred clients send WebSocket handshakes as a POST, one after the other."""
    await _knock(target, target.handshake("Content-Length: 5", method="POST") + b"\r\nhello")


@attack()
async def handshake_chunked(target: Target) -> None:
    """A hundred clients send WebSocket handshakes with a chunked body, one after the other."""
    await _knock(target, target.handshake("Transfer-Encoding: chunked") + b"\r\n5\r\nhello\r\n0\r\n\r\n")


@attack()
async def pings_read(target: Target) -> None:
    """Fifty streams send pings of one byte as fast as they can, and read the pongs."""
    pings = frame(PING, b"x") * _FRAMES

    async def client(_: int) -> None:
        async with target.streaming() as connection:
            await gather(connection.repeat(pings), connection.ignore())

    await crowd(_STREAMS, client)


@attack()
async def pings_unread(target: Target) -> None:
    """Fifty streams send pings of one byte as fast as they can, and read nothing."""
    pings = frame(PING, b"x") * _FRAMES

    async def client(_: int) -> None:
        async with target.streaming(SMALL_WINDOW) as connection:
            await connection.repeat(pings)

    await crowd(_STREAMS, client)


@attack()
async def empty_fragments(target: Target) -> None:
    """Fifty streams begin a message, and send empty continuation frames as fast as they can."""
    fragments = frame(CONTINUATION, last=False) * _FRAMES

    async def client(_: int) -> None:
        async with target.streaming() as connection:
            await connection.send(frame(TEXT, b"{", last=False))
            await connection.repeat(fragments)

    await crowd(_STREAMS, client)


@attack(keys=(False, True))
async def stream_flood(target: Target) -> None:
    """Fifty streams send small events as fast as they can, each for a session of its own, and read the answers."""

    async def client(number: int) -> None:
        event = packed({"session_id": f"flood-{number}", "items": target.items[:1], "top_k": 10})
        async with target.streaming() as connection:
            await gather(connection.repeat(frame(TEXT, event) * 200), connection.ignore())

    await crowd(_STREAMS, client)


@attack(keys=(False, True))
async def stream_unread(target: Target) -> None:
    """A hundred streams send events with 1,000 predictions as fast as they can, and never read."""

    async def client(number: int) -> None:
        event = packed({"session_id": f"unread-{number}", "items": target.items[:1], "top_k": 1000})
        async with target.streaming(SMALL_WINDOW) as connection:
            await connection.repeat(frame(TEXT, event) * 100)

    await crowd(100, client)


@attack()
async def idle_streams(target: Target) -> None:
    """Nine hundred streams are opened and then say nothing."""

    async def client(_: int) -> None:
        async with target.streaming():
            await sleep(3600)

    await crowd(900, client)
