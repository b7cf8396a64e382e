"""What an attack is, and how one is listed: a function with a decorator. Its docstring is what readers are told."""

from asyncio import gather, sleep
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from hostile.wire import Target

Run = Callable[[Target], Awaitable[None]]
_PAUSE = 0.01  # seconds before a client comes back to a server that has refused it


@dataclass(frozen=True)
class Attack:
    """An attack: a coroutine function that goes on until it is cancelled, and what it needs."""

    run: Run
    keys: tuple[bool, ...]
    """Whether the server asks for API keys: in each of these ways the attack is run."""
    flags: tuple[str, ...]
    """Further flags of the server."""
    tls: bool
    wide: bool

    @property
    def name(self) -> str:
        """Its name in tables and on the command line."""
        return self.run.__name__.replace("_", "-")

    @property
    def sentence(self) -> str:
        """What it does."""
        return " ".join((self.run.__doc__ or "").split())


LISTED: list[Attack] = []
"""The attacks of the modules that have been imported."""


def attack(
    *, keys: tuple[bool, ...] = (False,), flags: tuple[str, ...] = (), tls: bool = False, wide: bool = False
) -> Callable[[Run], Run]:
    """List a coroutine function as an attack.

    Args:
        keys: whether the server asks for API keys; with (False, True) the attack is run both without and with them.
        flags: further flags of the server.
        tls: whether the server speaks TLS.
        wide: whether the model has 50,000 items.
    """

    def listed(run: Run) -> Run:
        LISTED.append(Attack(run, keys, flags, tls, wide))
        return run

    return listed


async def crowd(size: int, client: Callable[[int], Awaitable[None]]) -> None:
    """Run so many clients at once; one that has ended or was cut off begins again."""
    await gather(*(_again(client, number) for number in range(size)))


async def _again(client: Callable[[int], Awaitable[None]], number: int) -> None:
    while True:
        with suppress(OSError):
            await client(number)
            continue
        await sleep(_PAUSE)
