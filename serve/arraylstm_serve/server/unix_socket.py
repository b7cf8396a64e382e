"""A socket with a path in place of an address, for a proxy on the same machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from stat import S_ISSOCK
from typing import Any

from arraylstm_serve.errors import StartupError, cause

AF_UNIX: Any = getattr(socket, "AF_UNIX", None)
"""The family of these sockets. Python has none on Windows."""

PERMISSIONS = 0o666
"""Everybody who can reach the path may connect, as with a port. A folder that fewer may enter lets in fewer."""


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Bind a socket to a path; remove the path at the end, unless another server has taken it over.

    Raises:
        StartupError: the path cannot be used, is that of another kind of file, or a server accepts connections there.
    """
    if AF_UNIX is None:
        raise StartupError(
            "--uds needs Unix sockets, which Python does not have on this system; give --host and --port."
        )
    with closing(socket.socket(AF_UNIX, socket.SOCK_STREAM)) as listener:
        with path_faults(path):
            _remove_abandoned(path)
            listener.bind(str(path))
            path.chmod(PERMISSIONS)
            inode = path.stat().st_ino
        try:
            yield listener
        finally:
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()


@contextmanager
def path_faults(path: Path | str) -> Iterator[None]:
    """Turn an error in using a path into a StartupError."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot listen on --uds {path}: {cause(error)}.") from error


def _remove_abandoned(path: Path) -> None:
    """Remove the socket of a server that has ended without doing so."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not S_ISSOCK(mode):
        raise StartupError(f"cannot listen on --uds {path}: there is a file that is not a socket.")
    with closing(socket.socket(AF_UNIX, socket.SOCK_STREAM)) as other:
        try:
            other.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise StartupError(f"cannot listen on --uds {path}: another server does.")
