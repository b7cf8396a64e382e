"""The victim and the attacker, each in a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import Any

from hostile.attacker import attack as run_attack
from hostile.registry import Attack
from hostile.victim import live
from hostile.wire import Target

_SPAWN = get_context("spawn")
_PATIENCE = 60.0  # seconds for a process to be ready, or for a victim to answer after its time


class TrialError(Exception):
    """A trial could not be made."""


@contextmanager
def victim_of(target: Target, core: int) -> Iterator[Pipe]:
    """Yield a pipe to a victim that is ready."""
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=live, args=(target, core, there), daemon=True)
    process.start()
    there.close()
    try:
        _received(here)
        yield here
    finally:
        process.kill()
        process.join()


def asked(victim: Pipe, seconds: float | None) -> Any:
    victim.send(seconds)
    return _received(victim, seconds or 0)


def _received(victim: Pipe, seconds: float = 0) -> Any:
    if not victim.poll(seconds + _PATIENCE):
        raise TrialError("the victim says nothing")
    try:
        return victim.recv()
    except EOFError as error:
        raise TrialError("the victim has ended") from error


@contextmanager
def attacking(attack: Attack, target: Target, core: int) -> Iterator[None]:
    """Attack within the context."""
    begun = _SPAWN.Event()
    process = _SPAWN.Process(target=run_attack, args=(attack.name, target, core, begun), daemon=True)
    process.start()
    try:
        if not begun.wait(_PATIENCE):
            raise TrialError(f"the attack {attack.name} does not begin")
        yield
        if not process.is_alive():
            raise TrialError(f"the attack {attack.name} has ended by itself, with status {process.exitcode}")
    finally:
        process.kill()
        process.join()
