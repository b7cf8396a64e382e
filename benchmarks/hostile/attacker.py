"""The process that attacks."""

from multiprocessing.synchronize import Event

import uvloop
from hostile.catalogue import ATTACKS
from hostile.cores import stand_back, stay_on
from hostile.wire import Target


def attack(name: str, target: Target, core: int, begun: Event) -> None:
    """Run an attack until this process is ended."""
    stay_on(core)
    stand_back()
    uvloop.run(_run(name, target, begun))


async def _run(name: str, target: Target, begun: Event) -> None:
    begun.set()
    await ATTACKS[name].run(target)
