"""Attacks with bodies: bad, deep, wide, compressed, in tiny pieces, and slow ones."""

import gzip
from asyncio import gather, sleep

from hostile.registry import attack, crowd
from hostile.wire import EVENTS, Connection, Target, packed

_MOST = 262_144  # bytes of a body that the server takes
_BOMB = 200 * 2**20
_PATH = EVENTS.format("body")
_SLOW = 500  # clients that send a byte at a time
_GAP = 0.5  # seconds between two of their bytes


async def _send(target: Target, clients: int, *requests: bytes) -> None:
    """Let clients send these requests in turn, and read the answers."""

    async def client(number: int) -> None:
        async with target.connected() as connection:
            while True:
                await connection.ask(requests[number % len(requests)])

    await crowd(clients, client)


@attack()
async def bad_json(target: Target) -> None:
    """A hundred clients send 256 KB that stop being JSON with the last byte."""
    body = b'{"items":[' + b"1," * ((_MOST - 11) // 2)
    await _send(target, 100, target.upload(_PATH, body + b"!"))


@attack()
async def deep_json(target: Target) -> None:
    """A hundred clients send 256 KB of JSON whose lists lie 131,000 deep in each other."""
    depth = (_MOST - 12) // 2
    await _send(target, 100, target.upload(_PATH, b'{"items":' + b"[" * depth + b"]" * depth + b"}"))


@attack()
async def wide_json(target: Target) -> None:
    """A hundred clients send 256 KB of JSON with 131,000 items, or with 20,000 fields that nobody knows."""
    items = b'{"items":[' + b",".join([b"1"] * (_MOST // 2 - 10)) + b"]}"
    fields = packed({f"f{number}": 0 for number in range(20_000)})
    await _send(target, 100, target.upload(_PATH, items), target.upload(_PATH, fields))


@attack()
async def gzip_bombs(target: Target) -> None:
    """Fifty clients send bodies that gzip makes 200 MB of, or that are thousands of empty gzip files in a row."""
    bomb = gzip.compress(bytes(_BOMB), 9)[:_MOST]
    empty = gzip.compress(b"")
    row = empty * (_MOST // len(empty))
    encoding = "Content-Encoding: gzip"
    await _send(target, 50, target.upload(_PATH, bomb, encoding), target.upload(_PATH, row, encoding))


@attack()
async def tiny_chunks(target: Target) -> None:
    """A hundred clients send bodies of 40 KB in chunks of one byte."""
    body = b'{"items":[' + b" " * 40_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    await _send(target, 100, target.head("POST", _PATH, "Transfer-Encoding: chunked") + b"\r\n" + chunks)


@attack()
async def slow_heads(target: Target) -> None:
    """Five hundred clients send the head of a request a byte at a time."""
    await _drip(target, b"", target.head("GET", "/healthz") + b"X: " + b"x" * 10_000)


@attack()
async def slow_bodies(target: Target) -> None:
    """Five hundred clients send the body of a request a byte at a time."""
    head = target.head("POST", _PATH, "Content-Length: 10000") + b"\r\n"
    await _drip(target, head, b" " * 10_000)


async def _drip(target: Target, begun: bytes, rest: bytes) -> None:
    async def client(_: int) -> None:
        async with target.connected() as connection:
            await connection.send(begun)
            await gather(connection.ignore(), _slowly(connection, rest))

    await crowd(_SLOW, client)


async def _slowly(connection: Connection, data: bytes) -> None:
    for byte in data:
        await connection.send(bytes([byte]))
        await sleep(_GAP)
