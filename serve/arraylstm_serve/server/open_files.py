"""How many files the server may open, which its connections are to the system."""

from __future__ import annotations

import sys

from arraylstm_serve.errors import StartupError
from arraylstm_serve.settings import ADMIN_CONNECTIONS, Settings

try:
    import resource
except ModuleNotFoundError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

SPARE_FILES = 64
"""Open files in addition to those of accepted connections; connections that are being refused need some of them."""


def most_files() -> int:
    """Return how many open files a process may be allowed at most."""
    if resource is None:
        return sys.maxsize
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def allow_files(settings: Settings) -> None:
    """Raise this process's limit of open files, so that it can have as many connections as are allowed.

    Raises:
        StartupError: the machine does not allow that many open files.
    """
    if resource is None:
        return
    connections = settings.max_connections
    spare = SPARE_FILES if settings.admin_port is None else SPARE_FILES + ADMIN_CONNECTIONS
    needed = connections + spare
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files() < needed:
        fitting = hard - spare
        remedy = f"give --max-connections {fitting}, or raise the limit" if fitting > 0 else "raise the limit"
        raise StartupError(
            f"--max-connections {connections} needs {needed} open files, but at most {hard} are allowed (ulimit -Hn); "
            f"{remedy}."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        except (OSError, ValueError) as error:  # macOS has a bound below its hard limit
            fitting = soft - spare
            remedy = f"give --max-connections {fitting}, or raise" if fitting > 0 else "raise"
            raise StartupError(
                f"--max-connections {connections} needs {needed} open files, and the limit of {soft} cannot be raised "
                f"to that ({error}); {remedy} the system's limit (on macOS kern.maxfilesperproc)."
            ) from error
