"""Start servers on one core, and read the CPU time that they have taken."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
APPS = Path(__file__).with_name("apps")
_MARK = "BENCHMARK_SERVER"
_TICKS = os.sysconf("SC_CLK_TCK")
_ERROR = re.compile(r"\w(Error|Exception): ")
_ANSWERING = 30.0  # seconds allowed for one answer
_PATIENCE = 10.0  # seconds allowed for a server to stop by itself


class ServerError(Exception):
    """A server did not start, or stopped by itself."""


class Server:
    """A server and all processes that it starts, on one core.

    A variable in their environment marks the processes, so they are found even if their parents have changed.

    Args:
        name: its name in tables.
        command: the command that starts it.
        port: the port that it listens on.
        core: the core that it runs on, or a list of cores as taskset takes it.
        ready: a path that it answers with 200 once it is ready.
        environment: variables that it gets besides those of this process.
        patience: seconds allowed for it to start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        port: int,
        core: int | str,
        *,
        ready: str = "/healthz",
        environment: Mapping[str, str] | None = None,
        patience: float = 30.0,
    ) -> None:
        self.name, self.port, self.core = name, port, core
        self._command = ["taskset", "--cpu-list", str(core), *map(str, command)]
        self._ready, self._patience = ready, patience
        self._mark = f"{_MARK}={uuid.uuid4()}"
        self._environment = os.environ | dict(environment or {}) | dict([self._mark.split("=")])

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready.

        Raises:
            ServerError: it ended, or took too long.
        """
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        log = Path(self._folder.name) / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                self._command, stdout=file, stderr=file, env=self._environment, cwd=self._folder.name
            )
        try:
            self._wait(log)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all its processes; kill those that do not end."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                _signal(pid, number)
            deadline = monotonic() + _PATIENCE
            while self._process.poll() is None or self.pids():
                if monotonic() > deadline:
                    break
                sleep(0.05)
        self._folder.cleanup()

    @property
    def cpu_seconds(self) -> float:
        """CPU time that its living processes have taken."""
        return sum(map(cpu_seconds, self.pids()))

    def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of its answer to a GET."""
        return self.request("GET", path, b"")

    def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of its answer."""
        connection = HTTPConnection(HOST, self.port, timeout=_ANSWERING)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _wait(self, log: Path) -> None:
        deadline = monotonic() + self._patience
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServerError(f"{self.name} ended with status {self._process.returncode}: {_last_words(log)}")
            if monotonic() > deadline:
                raise ServerError(f"{self.name} was not ready after {self._patience:.0f} seconds: {_last_words(log)}")
            sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return self.get(self._ready)[0] == 200
        except (OSError, HTTPException):
            return False

    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if self._owns(folder)]

    def _owns(self, folder: Path) -> bool:
        try:
            return self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            return False


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process (proc_pid_stat(5)), or 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()  # from field 3 on; the name before may contain anything
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _last_words(log: Path) -> str:
    """Return the last error in a server's log, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _ERROR.search(line)), lines[-1] if lines else "it said nothing")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def until_open(port: int, patience: float = 30.0) -> None:
    """Return once somebody listens on a port.

    Raises:
        ServerError: nobody does so in time.
    """
    deadline = monotonic() + patience
    while monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        sleep(0.05)
    raise ServerError(f"nothing listens on port {port} after {patience:.0f} seconds")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run this thread on one core within the context."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def ours(
    bundle: Path, core: int | str, *options: str, patience: float = 30.0, tracer: Sequence[str | Path] = ()
) -> Server:
    """Return arraylstm-serve with a bundle, started by another program if one is given."""
    port = free_port()
    command = [*tracer, sys.executable, "-m", "arraylstm_serve", bundle, "--port", str(port), *options]
    return Server("ours", command, port, core, patience=patience)


def floor(core: int) -> Server:
    """Return the raw ASGI server without inference."""
    port = free_port()
    return Server("raw", [sys.executable, APPS / "floor.py", str(port)], port, core)


def naive(step_graph: Path, core: int) -> Server:
    """Return the server as most people write it."""
    port = free_port()
    return Server("naive", [sys.executable, APPS / "naive.py", step_graph, str(port)], port, core)
