"""Where a server's admin listener is."""

from __future__ import annotations

import re

from ..servers import ServerProcess


def admin_port(server: ServerProcess) -> int:
    """The port that the greeting names."""
    match = re.search(r"^  admin     https?://127\.0\.0\.1:(\d+), API keys ", server.greeting, re.MULTILINE)
    assert match, server.greeting
    return int(match[1])


def admin_url(server: ServerProcess) -> str:
    """The URL of a server's admin listener."""
    return f"http://127.0.0.1:{admin_port(server)}"
