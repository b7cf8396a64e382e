"""A server process of one trial: its greeting, its memory, its open files, its end."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hostile.wire import HOST
from servers import cpu_seconds

_PROMISE = re.compile(r"at most ([\d.]+) MB")
_ADDRESS = re.compile(rf"https?://{re.escape(HOST)}:(\d+)")
_TO_STOP = 60.0  # seconds that a server may take to end


class NotStartedError(Exception):
    """The server did not start."""


@dataclass(frozen=True)
class Usage:
    """What a process uses: bytes of memory that are resident, and open files."""

    memory: int
    files: int


@dataclass(frozen=True)
class End:
    """How a server ended after SIGTERM."""

    status: int | None
    """None if it had to be killed."""
    tracebacks: int
    logged: int
    """Bytes of its log."""


class Serving:
    """A running `arraylstm-serve`."""

    def __init__(self, process: subprocess.Popen[str], log: Path, greeting: str) -> None:
        address, promise = _ADDRESS.search(greeting), _PROMISE.search(greeting)
        if not address or not promise:
            raise NotStartedError(log.read_text().strip() or f"the greeting is not understood: {greeting!r}")
        self._process, self._log = process, log
        self.port = int(address[1])
        self.promised = int(float(promise[1]) * 1e6)
        """Bytes that sessions and remembered answers take at most, as the greeting says."""

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def usage(self, field: str = "VmRSS") -> Usage | None:
        """Return what the process uses, or None if it has ended.

        Args:
            field: VmRSS for the memory now, VmHWM for the most since the last call of `forget` (proc(5)).
        """
        folder = Path(f"/proc/{self._process.pid}")
        try:
            memory = re.search(rf"^{field}:\s+(\d+) kB", (folder / "status").read_text(), re.MULTILINE)
            files = sum(1 for _ in (folder / "fd").iterdir())
        except OSError:
            return None
        return Usage(int(memory[1]) * 1024, files) if memory else None  # one that ends has no memory any more

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the process has taken."""
        return cpu_seconds(self._process.pid)

    def forget(self) -> None:
        """Count the highest use of memory from now on (proc(5), clear_refs)."""
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def stop(self) -> End:
        """End the process with SIGTERM; kill it if that does not end it."""
        self._process.terminate()
        try:
            status = self._process.wait(_TO_STOP)
        except subprocess.TimeoutExpired:
            status = None
            self._process.kill()
            self._process.wait()
        text = self._log.read_text(errors="replace")
        return End(status, text.count("Traceback"), len(text))


@contextmanager
def serving(bundle: Path, core: int, folder: Path, options: Sequence[str]) -> Iterator[Serving]:
    """Yield a server on a core; it is killed at the end of the context if it is still there.

    Raises:
        NotStartedError: it ended, and this is what it said.
    """
    log = folder / "log"
    command = [sys.executable, "-m", "arraylstm_serve", str(bundle), "--port", "0", "--device", "cpu", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        yield Serving(process, log, _greeting(process))
    finally:
        process.kill()
        process.communicate()


def _greeting(process: subprocess.Popen[str]) -> str:
    """Read up to the line about /docs, which is the last one."""
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if line.strip().startswith("docs"):
            break
    return "".join(lines)
