"""How many files the server may open, which its connections are to the system."""

from __future__ import annotations

from arraylstm_serve.errors import StartupError

try:
    import resource
except ModuleNotFoundError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

SPARE_FILES = 64
"""Open files in addition to those of accepted connections; connections that are being refused need some of them."""


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files, so that it can have so many connections.

    Raises:
        StartupError: the machine does not allow that many open files.
    """
    if resource is None:
        return
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        fitting = hard - SPARE_FILES
        remedy = f"give --max-connections {fitting}, or raise the limit" if fitting > 0 else "raise the limit"
        raise StartupError(
            f"--max-connections {connections} needs {needed} open files, but at most {hard} are allowed (ulimit -Hn); "
            f"{remedy}."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
