"""The memory there is, and what the settings' bounds take of it: too much is refused before any of it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import LOGITS, row_bytes, row_shapes
from arraylstm_serve.errors import StartupError
from arraylstm_serve.sessions.model import slot_count
from arraylstm_serve.sessions.session import SESSION_BYTES
from arraylstm_serve.settings import Settings

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's control group, of version 2 and of version 1, has its share."""


def memory_limit() -> int:
    """Bytes that this process can use: the machine's memory, or its control group's share where that is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_control_group_limits()])


def _control_group_limits() -> Iterator[int]:
    for path in CGROUP_LIMITS:
        with suppress(OSError):
            limit = path.read_text().strip()
            if limit.isdecimal():  # not "max"
                yield int(limit)


STATE_COPIES, LOGITS_COPIES = 32, 4
"""How often a run holds a row's states and its logits over, rounded up.

Measured over every cell at k=4: the states 28 times for `markov` and at most 13 times for others, the logits 3 times.
What a graph works out in between is its cell's affair, of which the server knows the states alone.
"""


def demands(bundle: Bundle, settings: Settings, *, on_host: bool = True) -> dict[str, int]:
    """Bytes of the host's memory that each bound takes once it is reached, by the setting's name.

    Args:
        bundle: the model.
        settings: the bounds.
        on_host: whether rows lie and runs happen there, and not on a device that has memory of its own.
    """
    shapes = row_shapes(bundle.manifest.states, len(bundle.vocabulary)) if on_host else {}
    row = row_bytes(shapes)
    return {
        "max_sessions": settings.max_sessions * (row + SESSION_BYTES),
        "max_pending": (slot_count(settings) - settings.max_sessions) * row,
        "max_batch": settings.max_batch * run_bytes(shapes),
        "max_answer_bytes": settings.max_answer_bytes,
    }


def run_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """About as many bytes as a run of the model takes for each row, whose tensors have these shapes."""
    copies = {name: LOGITS_COPIES if name == LOGITS else STATE_COPIES for name in shapes}
    return sum(4 * copies[name] * int(np.prod(shape)) for name, shape in shapes.items())


def too_much(needed: dict[str, int], settings: Settings) -> StartupError:
    """What is said where the machine cannot hold what the bounds need: the one that takes most is named."""
    most = max(needed, key=needed.__getitem__)
    flag = f"--{most.replace('_', '-')}"
    everything, largest, limit = (
        f"{count / 1e6:.1f} MB" for count in (sum(needed.values()), needed[most], memory_limit())
    )
    return StartupError(
        f"sessions, pending requests, batches and remembered answers need {everything} of memory, {largest} of it for "
        f"{flag} {getattr(settings, most)}, but there are {limit}; lower {flag}."
    )
