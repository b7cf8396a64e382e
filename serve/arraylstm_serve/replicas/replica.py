"""One replica: a server in a process of its own, and its lines told apart from the others'."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from arraylstm_serve.replicas.plan import environment
from arraylstm_serve.replicas.program import Output, Program
from arraylstm_serve.settings import Settings

logger = logging.getLogger(__name__)


class Replica(Program):
    """A server. It is ready once it has printed its greeting, as it does when it accepts requests.

    Args:
        path: the bundle.
        settings: its own settings.
        place: which one it is, from 0.

    Attributes:
        settings: its own settings.
    """

    def __init__(self, path: Path, settings: Settings, place: int) -> None:
        command: list[str | Path] = [sys.executable, "-m", "arraylstm_serve", path]
        super().__init__(f"replica {place}", command, environment(settings), self._log)
        self.settings = settings
        self._mark = f"[{place}] ".encode()
        self._member = f'{{"replica": {place}, '.encode()

    async def until_ready(self, output: Output) -> None:
        """See `Program.until_ready`."""
        await output.spoke

    def show_output(self, line: bytes) -> None:
        """See `Program.show_output`."""
        _write(sys.stdout.buffer, self._mark + line)

    @property
    def address(self) -> str:
        """Its address, as nginx takes it."""
        settings = self.settings
        if settings.uds:
            return f"unix:{settings.uds.absolute()}"
        return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"

    def _log(self, line: bytes) -> None:
        """Pass a log line on, with the replica's number before it, or as the first member of its JSON object."""
        if self.settings.log_format == "text":
            _write(sys.stderr.buffer, self._mark + line)
        elif line.startswith(b"{"):
            _write(sys.stderr.buffer, self._member + line[1:])
        else:
            logger.error("%s: %s", self.name, line.decode(errors="replace"))


def _write(stream: BinaryIO, line: bytes) -> None:
    """Write a line; drop it if that fails, as the replicas go on all the same."""
    with suppress(OSError):
        stream.write(line + b"\n")
        stream.flush()
