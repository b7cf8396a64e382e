"""HTTPS: the certificate, and connections that count and have a clock before they are encrypted."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from arraylstm_serve.api.problems import Problem
from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.server.protocol import LINGER
from arraylstm_serve.sessions.limits import Connection, Connections


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Load what encrypts connections; None without a certificate.

    Args:
        certificate: a PEM file; the key may be in it.
        key: a PEM file with the key alone.

    Raises:
        StartupError: the files cannot be used, or there is a key without a certificate.
    """
    if certificate is None:
        if key is not None:
            raise StartupError("--tls-key is given without --tls-certificate; give both, or neither.")
        return None
    named = f"--tls-certificate {certificate}" + (f" with --tls-key {key}" if key else "")

    def refuse_to_ask() -> str:
        """Raise, where OpenSSL would ask the terminal for the password and wait for ever if there is none."""
        raise StartupError(
            f"{named} cannot be used: the key is encrypted, and there is nobody to ask for its password; decrypt it "
            f"with `openssl pkey -in {key or certificate} -out KEY` and give --tls-key KEY."
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, refuse_to_ask)
    except OSError as error:  # ssl.SSLError among them
        raise StartupError(f"{named} cannot be used: {cause(error)}.") from error
    return context


RETRY = 0.1
"""Seconds until the next try to accept a connection when the process has no open file left for one."""

logger = logging.getLogger(__name__)


class Listener:
    """Accepts connections and encrypts them; to uvicorn, a server like asyncio's own.

    asyncio's `create_server(ssl=..., ssl_handshake_timeout=...)` cannot do this. It does not report a failed handshake,
    so connections could not be counted before theirs. It gives every handshake the same time, so connections beyond
    the bound would keep their open files as long as the others. Closing it does not end handshakes.

    Args:
        listener: listens already.
        context: encrypts the connections.
        new_protocol: makes the protocol of an encrypted connection.
        connections: those that the server ends when it stops. A connection is among them before its handshake.
        counted: counts the connections. A connection counts before its handshake; one that is refused has LINGER
            seconds for it, after which the protocol can tell it why.
        patience: seconds for a handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        new_protocol: Callable[[], Any],
        connections: set[Any],
        counted: Connections,
        patience: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._context = context
        self._new_protocol = new_protocol
        self._connections = connections
        self._counted = counted
        self._patience = patience
        listener.setblocking(False)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accept no more connections, and end the handshakes under way."""
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        """Wait until the handshakes have ended."""
        await asyncio.wait([self._accepting])

    async def _accept(self) -> None:
        async with asyncio.TaskGroup() as handshakes:
            while True:
                try:
                    connection, peer = await self._loop.sock_accept(self._listener)
                except ConnectionAbortedError:  # the client has gone already
                    continue
                except OSError:
                    await asyncio.sleep(RETRY)
                    continue
                handshakes.create_task(self._shake_hands(connection, peer[0] if peer else ""))

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        """Encrypt a connection; from then on its protocol answers for it."""
        handshake = Handshake(self._new_protocol, self._connections)
        with suppress(Problem):
            handshake.counted = self._counted.open(address)
            self._connections.add(handshake)
        try:
            await self._loop.connect_accepted_socket(
                lambda: handshake,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=LINGER if handshake.counted is None else self._patience,
                ssl_shutdown_timeout=LINGER,
            )
        except OSError:  # the client has gone, does not speak TLS, or is too slow
            pass
        except Exception:  # or the group would end every other handshake
            logger.exception("a TLS handshake failed")
        finally:
            self._connections.discard(handshake)
            handshake.end()


class Handshake(asyncio.Protocol):
    """Stands for a connection among those that count, until its handshake is done."""

    def __init__(self, new_protocol: Callable[[], Any], connections: set[Any]) -> None:
        self.counted: Connection | None = None
        self._new_protocol = new_protocol
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # asyncio's own is wider
        """Make room for the protocol of the encrypted connection."""
        self._connections.discard(self)
        protocol = self._new_protocol()
        protocol.counted, self.counted = self.counted, None
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def end(self) -> None:
        """Count the connection no more, unless its protocol has taken it over."""
        if self.counted is not None:
            self.counted.close()

    def shutdown(self) -> None:
        """Do nothing; uvicorn calls it when the server stops, and `Listener.close` has ended this handshake."""
