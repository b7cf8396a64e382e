"""The sockets that a server listens on."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.server.unix_socket import AF_UNIX, path_faults, unix_socket
from arraylstm_serve.settings import Settings

RECEIVE_BUFFER = 16_384
"""Bytes that the kernel keeps of a connection that is not read, about; of its own accord it would keep megabytes.

It is also what comes in one piece, and so what is held of requests sent ahead: Linux doubles it, 32 KB at most.
"""

SEND_BUFFER = 65_536
"""Bytes that the kernel keeps for a client that does not read, about; of its own accord it would keep megabytes."""

PUBLIC, ADMIN = ("--host", "--port"), ("--admin-host", "--admin-port")
"""The flags that name the address of each listener."""


@contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """Bind the socket that the settings name; see `listen` and `unix_socket`."""
    if settings.uds is None:
        yield listen(settings.host, settings.port)
    else:
        with unix_socket(settings.uds) as listener:
            yield listener


@contextmanager
def admin_bound(settings: Settings) -> Iterator[socket.socket | None]:
    """Bind the admin listener's socket; None if there is to be none."""
    if settings.admin_port is None:
        yield None
    else:
        with listen(settings.admin_host, settings.admin_port, ADMIN) as listener:
            yield listener


def listen(host: str, port: int, flags: tuple[str, str] = PUBLIC) -> socket.socket:
    """Return a socket bound to the address; connections are refused until the server listens on it.

    Args:
        host: a name or an address.
        port: 0 for any that is free.
        flags: the settings that name them, for messages.

    Raises:
        StartupError: the address cannot be bound.
    """
    with address_faults(host, port, flags):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # where a second server could take the address over
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # each connection inherits them
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    return listener


@contextmanager
def address_faults(host: str, port: int, flags: tuple[str, str]) -> Iterator[None]:
    """Turn an error in using an address into a StartupError."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise StartupError(
            f"cannot listen on host {host} port {port}: {cause(error)}; choose others with {' and '.join(flags)}."
        ) from error


def faults_of(listener: socket.socket, flags: tuple[str, str]) -> AbstractContextManager[None]:
    """Turn an error in using a bound socket into a StartupError."""
    if listener.family == AF_UNIX:
        return path_faults(listener.getsockname())
    host, port = listener.getsockname()[:2]
    return address_faults(host, port, flags)


def url_of(listener: socket.socket, scheme: str) -> str:
    """Return the URL of a socket that is bound to an address."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
