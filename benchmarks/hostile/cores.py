"""Which core a process is on, and whom the scheduler prefers there."""

import os
from contextlib import suppress

_PREFERENCE = 10


def cores() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0)


def stay_on(core: int) -> None:
    """Keep this process on a core."""
    os.sched_setaffinity(0, {core})


def prefer() -> None:
    """Have this process preferred over the others on its core, as far as the system allows (root alone may)."""
    with suppress(PermissionError):
        os.nice(-_PREFERENCE)


def stand_back() -> None:
    """Where `prefer` is not allowed, have every other process preferred over this one."""
    if os.geteuid() != 0:
        os.nice(_PREFERENCE)
