"""How much memory there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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
