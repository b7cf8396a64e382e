"""HTTPS: the certificate, and connections that count and have a clock from the moment they are accepted."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.server.protocol import LINGER
from arraylstm_serve.settings import Settings


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where there is no certificate.

    Args:
        certificate: a PEM file, perhaps with the key in it.
        key: a PEM file of the key alone.

    Raises:
        StartupError: the files cannot be used, or there is a key without a certificate.
    """
    if certificate is None:
        if key is not None:
            raise StartupError("--tls-key is given without --tls-certificate; give both, or neither.")
        return None
    named = f"--tls-certificate {certificate}" + (f" with --tls-key {key}" if key else "")

    def refuse_to_ask() -> str:
        """Without this OpenSSL asks the terminal for the password, and a server without one waits for ever."""
        raise StartupError(
            f"{named} cannot be used: the key is encrypted and there is nobody to ask for its password; give as "
            f"--tls-key what `openssl pkey -in {key or certificate} -out KEY` writes."
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, refuse_to_ask)
    except OSError as error:  # ssl.SSLError among them
        raise StartupError(f"{named} cannot be used: {cause(error)}.") from error
    return context


RETRY = 0.1
"""Seconds until connections are accepted again where no open file was left for one."""


class Listener:
    """Accepts connections and lets them shake hands; to uvicorn a server like asyncio's own.

    Args:
        listener: listens already.
        context: what connections are encrypted with.
        new_protocol: makes what serves a connection that is encrypted.
        connections: all that count; a connection is among them from the start.
        settings: the bounds. A connection beyond `max_connections` does not count and has LINGER seconds to shake
            hands, so that it can be told; the others have `request_timeout`.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        new_protocol: Callable[[], asyncio.Protocol],
        connections: set[Any],
        settings: Settings,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._context = context
        self._new_protocol = new_protocol
        self._connections = connections
        self._settings = settings
        self._handshakes: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no further connections, and end those that have not shaken hands."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        for handshake in self._handshakes:
            handshake.cancel()

    async def wait_closed(self) -> None:
        """Wait until that is done."""
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has gone already
            return
        except OSError:
            self._loop.remove_reader(self._listener)
            self._retry = self._loop.call_later(RETRY, self._listen)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._shake_hands(connection))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket) -> None:
        settings = self._settings
        handshake = Handshake(self._new_protocol, self._connections)
        crowded = len(self._connections) >= settings.max_connections
        if not crowded:
            self._connections.add(handshake)
        try:
            await self._loop.connect_accepted_socket(
                lambda: handshake,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=LINGER if crowded else settings.request_timeout,
                ssl_shutdown_timeout=LINGER,
            )
        except OSError:  # the client has gone, speaks no TLS, or is too slow
            pass
        finally:
            self._connections.discard(handshake)


class Handshake(asyncio.Protocol):
    """Stands for a connection until it has shaken hands, then makes room for the one that serves it."""

    def __init__(self, new_protocol: Callable[[], asyncio.Protocol], connections: set[Any]) -> None:
        self._new_protocol = new_protocol
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # asyncio's own is wider
        """Hand the connection on, now that it is encrypted."""
        self._connections.discard(self)
        protocol = self._new_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def shutdown(self) -> None:
        """Uvicorn's word to each connection when the server stops; the listener has ended this one by then."""
