"""How much memory there is, and how much the settings' bounds need; the server does not start if they need too much."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import LOGITS, row_bytes, row_shapes
from arraylstm_serve.errors import StartupError
from arraylstm_serve.sessions.model import accepted, slot_count
from arraylstm_serve.sessions.session import session_bytes
from arraylstm_serve.settings import Settings

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The files with the memory limit of a container's control group, of version 2 and of version 1."""


def memory_limit() -> int:
    """Return the bytes that this process can use: the machine's memory, or its control group's limit if lower."""
    return min([_machine_memory(), *_control_group_limits()])


def _machine_memory() -> int:
    if sys.platform != "win32":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kilobytes = ctypes.c_ulonglong()
    ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return kilobytes.value * 1024 or sys.maxsize  # 0 where the firmware does not tell


def _control_group_limits() -> Iterator[int]:
    for path in CGROUP_LIMITS:
        with suppress(OSError):
            limit = path.read_text().strip()
            if limit.isdecimal():  # not "max"
                yield int(limit)


STATE_COPIES, LOGITS_COPIES = 32, 4
"""How many copies of a row's states, and of its logits, a run has in memory at most.

Measured over every cell at k=4, then rounded up: 28 copies of the states for `markov`, at most 13 for other cells, and
3 of the logits. The server cannot compute this: it knows only the states of a cell, not what its graph computes.
"""


CONNECTION_BYTES = 120_000
"""The most bytes of a connection: 64 KiB of head, 32 of what came behind it, 16 of an answer or body."""


def demands(bundle: Bundle, settings: Settings, *, on_host: bool = True) -> dict[str, int]:
    """Return how many bytes of the host's memory each bound takes once it is reached, by the setting's name.

    Args:
        bundle: the model.
        settings: the bounds.
        on_host: whether the rows and runs use the host's memory. For a device, the host has two copies of a batch's
            rows in memory that the device reaches: one to read rows, one to write them.
    """
    shapes = row_shapes(bundle.manifest.states, len(bundle.vocabulary))
    run, row = (run_bytes(shapes), row_bytes(shapes)) if on_host else (2 * row_bytes(shapes), 0)
    return {
        "max_sessions": settings.max_sessions * (row + session_bytes(accepted(bundle, settings))),
        "max_pending": (slot_count(settings) - settings.max_sessions) * row,
        "max_batch": settings.max_batch * run,
        "max_answer_bytes": settings.max_answer_bytes,
        "max_connections": settings.max_connections * CONNECTION_BYTES,
        "max_body_bytes": settings.max_body_bytes,
        "max_unread_bytes": settings.max_unread_bytes,
    }


def run_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Estimate how many bytes a run of the model takes for each row, from the shapes of a row's tensors."""
    copies = {name: LOGITS_COPIES if name == LOGITS else STATE_COPIES for name in shapes}
    return sum(4 * copies[name] * prod(shape) for name, shape in shapes.items())


def too_much(needed: dict[str, int], settings: Settings) -> StartupError:
    """Return the error for bounds that need more memory than there is; it names the bound that takes most."""
    most = max(needed, key=needed.__getitem__)
    flag = f"--{most.replace('_', '-')}"
    everything, largest, limit = (
        f"{count / 1e6:.1f} MB" for count in (sum(needed.values()), needed[most], memory_limit())
    )
    return StartupError(
        f"sessions, requests, batches, answers and connections need {everything} of memory, {largest} of it for "
        f"{flag} {getattr(settings, most)}, but there are {limit}; lower {flag}."
    )
