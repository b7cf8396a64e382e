"""A program that is watched: its lines are passed on with its name, and it is started again when it ends by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from arraylstm_serve.errors import StartupError, cause

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a program is started again: the first time, and at most. Each pause is twice the one before."""

CALM = 60.0
"""Seconds that a program must have run for its next pause to be the first one again."""

TIED = Path(__file__).with_name("tied.py")

STDOUT, STDERR = 1, 2

logger = logging.getLogger(__name__)

Show = Callable[[bytes], None]
"""Passes a line on."""


class Program:
    """A program that is kept running. A subclass says when it is ready.

    Args:
        name: its name in messages.
        command: the program and its arguments.
        environment: its variables.
        show: passes on its lines on standard error.
        stop_signal: the signal that ends it once it has done its work.

    Attributes:
        ready: set once it has been ready for the first time.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        show: Show,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self._command = [str(word) for word in command]
        self._environment = dict(environment)
        self._show = show
        self._stop_signal = stop_signal
        self._transport: asyncio.SubprocessTransport | None = None
        self._is_ready = False
        self._hung_up = False
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Run the program until `stop` is called; if it ends by itself, start it again after a pause.

        Raises:
            StartupError: it cannot be started, or has ended before it was ready for the first time.
        """
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            status = await self._run()
            if self._stopping.is_set():
                return
            if not self.ready.is_set():
                raise StartupError(f"{self.name} {ended(status)} before it was ready; the lines above say why.")
            if asyncio.get_running_loop().time() - began >= CALM:
                pause = FIRST_PAUSE
            logger.error("%s %s; it is started again in %g s", self.name, ended(status), pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def hang_up(self) -> None:
        """Pass SIGHUP on, at once or when the program is ready: before, it would end it."""
        if self._is_ready:
            self.send(signal.SIGHUP)
        else:
            self._hung_up = True

    def stop(self) -> None:
        """Ask the program to end, and start it no more."""
        self._stopping.set()
        self.send(self._stop_signal)

    def kill(self) -> None:
        """End the program at once."""
        self._stopping.set()
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal, if it runs."""
        if self._transport is not None and self._transport.get_returncode() is None:
            self._transport.send_signal(number)

    async def until_ready(self, output: Output) -> None:
        """Return when the program that has just been started is ready."""
        raise NotImplementedError

    def show_output(self, line: bytes) -> None:
        """Pass on a line that the program has written on standard output."""
        self._show(line)

    async def _run(self) -> int:
        """Run the program once; return its exit status, which is minus a signal's number if that has ended it."""
        output = Output(self.show_output, self._show)
        transport = self._transport = await self._start(output)
        if self._stopping.is_set():  # meanwhile
            self.send(self._stop_signal)
        watching = asyncio.create_task(self._note_ready(output))
        await output.exited
        watching.cancel()
        self._is_ready = False
        with suppress(ProcessLookupError):  # what it has started itself and left behind, such as nginx's workers
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await output.ended
        transport.close()
        status = transport.get_returncode()
        assert status is not None
        return status

    async def _start(self, output: Output) -> asyncio.SubprocessTransport:
        """Start the program, in a process group of its own: a terminal's Ctrl-C is for us alone."""
        tied = (sys.executable, "-ISs", TIED, str(os.getpid()))
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: output,
                *tied,
                *self._command,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                process_group=0,
            )
        except OSError as error:
            raise StartupError(f"{self.name} cannot be started: {cause(error)}.") from error
        return transport

    async def _note_ready(self, output: Output) -> None:
        await self.until_ready(output)
        self._is_ready = True
        self.ready.set()
        if self._hung_up:
            self._hung_up = False
            self.send(signal.SIGHUP)


class Output(asyncio.SubprocessProtocol):
    """Passes on what a process writes, line by line, and notes its end.

    asyncio's own `Process.wait` waits for the end of the pipes too, which processes hold open that have outlived it.

    Args:
        out: takes a line of standard output.
        err: takes a line of standard error.

    Attributes:
        spoke: done when the process has written a line on standard output.
        exited: done when the process has ended.
        ended: done when its pipes have ended too.
    """

    def __init__(self, out: Show, err: Show) -> None:
        loop = asyncio.get_running_loop()
        self.spoke: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._shows = {STDOUT: out, STDERR: err}
        self._rests = {STDOUT: b"", STDERR: b""}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Pass on whole lines."""
        *lines, self._rests[fd] = (self._rests[fd] + data).split(b"\n")
        for line in lines:
            self._shows[fd](line)
        if fd == STDOUT and lines and not self.spoke.done():
            self.spoke.set_result(None)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Pass on a last line without an end."""
        if fd in self._rests and (rest := self._rests.pop(fd)):
            self._shows[fd](rest)

    def process_exited(self) -> None:
        """Note that the process has ended."""
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the process and its pipes have ended."""
        self.ended.set_result(None)


def ended(status: int) -> str:
    """Return in words how a program has ended."""
    if status >= 0:
        return f"has ended with status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
