"""Attacks with requests that have no body."""

from asyncio import gather

from hostile.registry import attack, crowd
from hostile.wire import SMALL_WINDOW, Target

_CLIENTS = 300
_PIPELINED = 500  # requests in one write


@attack()
async def pipelined_read(target: Target) -> None:
    """Sixteen clients send GETs of /healthz without waiting for answers, and read all answers."""
    requests = target.get("/healthz") * _PIPELINED

    async def client(_: int) -> None:
        async with target.connected() as connection:
            await gather(connection.repeat(requests), connection.ignore())

    await crowd(16, client)


@attack()
async def pipelined_unread(target: Target) -> None:
    """Two hundred clients send GETs of /openapi.json without waiting for answers, and read nothing."""
    requests = target.get("/openapi.json") * _PIPELINED

    async def client(_: int) -> None:
        async with target.connected(SMALL_WINDOW) as connection:
            await connection.repeat(requests)

    await crowd(200, client)


async def _ask_for(target: Target, path: str) -> None:
    request = target.get(path)

    async def client(_: int) -> None:
        async with target.connected() as connection:
            while True:
                await connection.ask(request)

    await crowd(_CLIENTS, client)


@attack()
async def openapi(target: Target) -> None:
    """Three hundred clients ask for /openapi.json again and again."""
    await _ask_for(target, "/openapi.json")


@attack()
async def docs(target: Target) -> None:
    """Three hundred clients ask for /docs again and again."""
    await _ask_for(target, "/docs")


@attack()
async def metrics(target: Target) -> None:
    """Three hundred clients ask for /metrics again and again."""
    await _ask_for(target, "/metrics")


@attack()
async def model(target: Target) -> None:
    """Three hundred clients ask for /v1/model again and again."""
    await _ask_for(target, "/v1/model")


@attack()
async def missing(target: Target) -> None:
    """Three hundred clients ask for a path that does not exist (404) again and again."""
    await _ask_for(target, "/v1/nothing")


@attack()
async def header_flood(target: Target) -> None:
    """Fifty clients send heads of 60 KB in 9,000 headers, and heads that are longer than the server allows."""
    small = target.head("GET", "/healthz")
    heads = (small + b"X: x\r\n" * 9000 + b"\r\n", small + b"X: x\r\n" * 40_000 + b"\r\n")

    async def client(number: int) -> None:
        async with target.connected() as connection:
            while True:
                await connection.ask(heads[number % len(heads)])

    await crowd(50, client)
