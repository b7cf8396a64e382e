"""Runs a program that gets SIGTERM when the process that started it ends, even by kill -9. Only Linux has that.

    python tied.py PID PROGRAM ARGUMENT...

This is a script of its own because Python code between fork and exec (`preexec_fn`) is not safe where there are
threads, and asyncio has some.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2). It outlives exec."""


def main(parent: int, command: list[str]) -> None:
    """Become the program, unless the parent has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(f"process {parent} has ended meanwhile")
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
