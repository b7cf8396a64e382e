"""Starts the replicas and nginx, passes signals on, and stops them all."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from arraylstm_serve import __version__
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.errors import StartupError
from arraylstm_serve.replicas.nginx import SITE, Nginx, find, quoted
from arraylstm_serve.replicas.plan import check, check_memory, check_ports, replica_settings
from arraylstm_serve.replicas.program import Program
from arraylstm_serve.replicas.replica import Replica
from arraylstm_serve.server import logs
from arraylstm_serve.server.early import record_signals
from arraylstm_serve.server.process import kept_in, say
from arraylstm_serve.settings import Settings, warn_of_unknown_variables

LAST_REQUESTS = 5.0
"""Most seconds in which a stopping nginx passes on what it has accepted, before the replicas begin to stop."""

PATIENCE = 10.0
"""Seconds beyond --shutdown-timeout after which a program that does not end is killed."""

FAILED = 1
"""Exit status if a program had to be killed, or failed while it stopped."""

logger = logging.getLogger(__name__)


def supervise(path: Path, settings: Settings) -> int:
    """Run `--replicas` servers of a bundle until SIGTERM or SIGINT; return the exit status.

    Raises:
        StartupError: the settings contradict each other, the bundle or an address cannot be used, the memory is not
            enough, or a replica or nginx has ended before it was ready.
    """
    signals = record_signals()
    if signals:
        return 0
    logs.configure(settings)
    warn_of_unknown_variables()
    settings.check_admin()
    settings.check_sessions()
    check(settings)
    program = find(settings)
    check_ports(settings, balanced=program is not None)
    check_memory(Bundle.load(path), settings)
    with own_folder() as folder:
        return asyncio.run(Supervisor(path, settings, program, folder).run(signals))


@contextmanager
def own_folder() -> Iterator[Path]:
    """Make a folder that only this user can enter, for sockets and nginx's files; remove it at the end.

    Raises:
        StartupError: there is no place for temporary files.
    """
    try:
        folder = TemporaryDirectory(prefix="arraylstm-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StartupError(f"--replicas needs a folder for temporary files: {error}; name one with TMPDIR.") from error
    with folder as name:
        yield Path(name)


class Supervisor:
    """The replicas, and nginx before them.

    Args:
        path: the bundle.
        settings: the settings of all.
        program: the path of nginx; None to go without.
        folder: a folder of our own.
    """

    def __init__(self, path: Path, settings: Settings, program: str | None, folder: Path) -> None:
        self._path = path
        self._settings = settings
        self._program = program
        self._folder = folder
        self._nginx: Nginx | None = None
        self._replicas: list[Replica] = []
        self._kept: dict[Program, asyncio.Task[None]] = {}
        self._over = asyncio.Event()

    async def run(self, signals: Sequence[int]) -> int:
        """Start everything, keep it running until a signal to stop, and stop it; return the exit status.

        Args:
            signals: the signals received so far; if there are any, nothing is started.

        Raises:
            StartupError: a program has ended before it was ready.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._over.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        if signals:
            return 0
        starting = self._do(self._start())
        await self._over.wait()
        starting.cancel()
        clean = await self._end()
        for task in (*self._kept.values(), starting):
            if task.done() and not task.cancelled():
                task.result()
        return 0 if clean else FAILED

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do some work beside; if it fails, all is over."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._over.set()

    async def _start(self) -> None:
        """Start the first replica, which tells whether it can be done; then the others, then nginx; then say so."""
        first, *others = self._replicas = [self._replica(place) for place in range(self._settings.replicas)]
        if self._program:
            servers = [replica.address for replica in self._replicas]
            self._nginx = Nginx(self._program, self._settings, self._folder, servers, note_nginx)
        await self._keep([first])
        await self._keep(others)
        if self._nginx is not None:
            await self._keep([self._nginx])
        say(self._greeting())

    def _replica(self, place: int) -> Replica:
        settings = replica_settings(self._settings, place, self._folder if self._program else None)
        return Replica(self._path, settings, place)

    async def _keep(self, programs: Sequence[Program]) -> None:
        """Start programs and keep them running; return when all are ready."""
        self._kept |= {program: self._do(program.keep()) for program in programs}
        await asyncio.gather(*(program.ready.wait() for program in programs))

    async def _end(self) -> bool:
        """Stop nginx and then the replicas; kill what does not end in time. Return whether nothing was killed."""
        if self._nginx is not None and self._nginx in self._kept:
            self._nginx.stop()
            await asyncio.wait([self._kept[self._nginx]], timeout=LAST_REQUESTS)
        for replica in self._replicas:
            replica.stop()
        if not self._kept:
            return True
        _, late = await asyncio.wait(self._kept.values(), timeout=self._settings.shutdown_timeout + PATIENCE)
        for program, task in self._kept.items():
            if task in late:
                logger.error("%s does not end; it is killed", program.name)
                program.kill()
        await asyncio.gather(*self._kept.values(), return_exceptions=True)
        return not late

    def _hang_up(self) -> None:
        """Pass SIGHUP on to the replicas; nginx has no files of the operator's."""
        for replica in self._replicas:
            replica.hang_up()

    def _greeting(self) -> str:
        """Return the text for the person who started the replicas."""
        settings = self._settings
        lines = [
            f"arraylstm-serve {__version__}: {settings.replicas} replicas are ready",
            f"  sessions  kept in {kept_in(settings.sessions)}",
        ]
        if self._nginx:
            lines.append(f"  serving   {self._nginx.url} by nginx, which keeps a session on one replica")
        else:
            lines += self._advice()
        return "\n".join(lines)

    def _advice(self) -> list[str]:
        """Return the lines that say how to put a balancer before the replicas."""
        return [
            "  balancer  none; put one before the replicas. For nginx copy",
            f"              {SITE},",
            "            remove the # before hash, and have in place of its servers:",
            *(
                f"              server {quoted(replica.address)} max_fails=1 fail_timeout=5s;"
                for replica in self._replicas
            ),
        ]


def note_nginx(line: bytes) -> None:
    """Log what nginx says."""
    logger.warning("nginx: %s", line.decode(errors="replace"))
