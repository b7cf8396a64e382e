"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_limit() -> int:
    """Bytes that this process can use: the machine's memory, or its control group's share where that is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(machine, _control_group_limit() or machine)


def _control_group_limit() -> int | None:
    try:
        limit = CGROUP_LIMIT.read_text().strip()
    except OSError:
        return None
    return int(limit) if limit.isdecimal() else None
