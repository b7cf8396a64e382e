"""Server processes that tests start and stop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .devices import Chosen


class ServerProcess:
    """A running `arraylstm-serve`."""

    def __init__(self, bundle: Path, *arguments: str, port: int = 0, python: Path | str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, "-m", "arraylstm_serve", bundle, "--port", str(port), "--device", Chosen.device, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.greeting = self._read_greeting()
        match = re.search(r"https?://127\.0\.0\.1:(\d+)", self.greeting)
        assert match, self.process.communicate()
        self.port = int(match[1])
        self.url = match[0]

    def _read_greeting(self) -> str:
        assert self.process.stdout
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "docs" in line:
                break
        return "".join(lines)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


Start = Callable[..., ServerProcess]
"""Starts a server with some flags and, by name, the options of `ServerProcess`."""
