"""Looking at a server while it is attacked: what it uses, and whether it answers those who come new."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

from hostile.client import newcomer_is_answered
from hostile.serving import Serving, Usage
from hostile.wire import Target

NEWCOMER = 0.5
"""Seconds between two clients that connect during an attack."""
NEWCOMER_WAITS = 2.0
"""Seconds that each of them gives the server."""

_LOOK = 0.05  # seconds between two looks at memory and files


class Watch:
    """Looks at a server from time to time, and sends newcomers to it."""

    def __init__(self, server: Serving, target: Target) -> None:
        self._server, self._target = server, target
        self._over = Event()
        self._memory = self._files = 0
        self._answered: list[bool] = []
        self._since = self._now()
        self.busy = 0.0
        """Share of its core that the server used."""

    def look(self) -> None:
        """Look at memory and open files until the end."""
        while not self._over.wait(_LOOK):
            if usage := self._server.usage("VmHWM"):
                self._memory, self._files = max(self._memory, usage.memory), max(self._files, usage.files)

    def knock(self) -> None:
        """Send newcomers until the end."""
        while not self._over.wait(NEWCOMER):
            self._answered.append(newcomer_is_answered(self._target, NEWCOMER_WAITS))

    def stop(self) -> None:
        """Come to the end."""
        self._over.set()
        (began, used), (ended, more) = self._since, self._now()
        self.busy = (more - used) / (ended - began)

    def _now(self) -> tuple[float, float]:
        return perf_counter(), self._server.cpu_seconds

    @property
    def newcomers(self) -> tuple[int, int]:
        """How many newcomers were answered, and how many there were."""
        return sum(self._answered), len(self._answered)

    def most(self, before: Usage) -> Usage:
        """Return the most memory and the most open files until now, given what there was at first."""
        last = self._server.usage("VmHWM") or before  # the most memory is the kernel's figure, no moment is missed
        return Usage(max(self._memory, last.memory, before.memory), max(self._files, last.files, before.files))


@contextmanager
def watching(server: Serving, target: Target) -> Iterator[Watch]:
    watch = Watch(server, target)
    threads = [Thread(target=watch.look), Thread(target=watch.knock)]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        for thread in threads:
            thread.join()
