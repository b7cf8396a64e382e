"""uvicorn's server on a socket of ours: encrypted by our Listener, and no connection stands still for ever."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import uvicorn

from arraylstm_serve.server.config import Config
from arraylstm_serve.server.sockets import ADMIN, PUBLIC, faults_of
from arraylstm_serve.server.stalls import end_stalled
from arraylstm_serve.server.tls import Listener

STOP_PATIENCE = 5.0
"""Seconds that a stopping server gives a connection whose client reads nothing."""


class ListeningServer(uvicorn.Server):
    """A uvicorn server on bound sockets.

    Args:
        config: uvicorn's own settings.
        timeout: seconds for which a connection may stand still.
    """

    flags = PUBLIC
    """The settings that name the sockets' address, for messages."""

    def __init__(self, config: uvicorn.Config, timeout: float) -> None:
        super().__init__(config)
        self._timeout = timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections.

        Raises:
            StartupError: another process has begun to listen on the address.
        """
        for listener in sockets or ():
            with faults_of(listener, self.flags):
                listener.listen(self.config.backlog)
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            for listener in sockets or ():
                self.servers.append(self._listen(listener))  # type: ignore[arg-type]
        connections = self.server_state.connections
        self._looking = asyncio.get_running_loop().create_task(end_stalled(connections, self._patience))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: answer what has come, and end every connection."""
        await super().shutdown(sockets)
        self._looking.cancel()

    def _patience(self) -> float:
        return min(STOP_PATIENCE, self._timeout) if self.should_exit else self._timeout

    def _listen(self, listener: socket.socket) -> Listener:
        """Accept encrypted connections."""
        config, state = self.config, self.server_state
        assert isinstance(config, Config)
        new_protocol = partial(config.http_protocol_class, config, state, self.lifespan.state)  # type: ignore[call-arg]
        return Listener(listener, new_protocol, state.connections, config)


class AdminServer(ListeningServer):
    """The admin listener. The public listener's server starts and stops it, and has it tick.

    Its connections are its own, so that it answers while the public listener has none left.

    Args:
        config: its settings.
        timeout: see `ListeningServer`.
        listener: its socket.
    """

    flags = ADMIN

    def __init__(self, config: Config, timeout: float, listener: socket.socket) -> None:
        super().__init__(config, timeout)
        self._listener = listener

    async def open(self) -> None:
        """Start to accept connections."""
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup([self._listener])

    async def close(self) -> None:
        """Stop."""
        self.should_exit = True
        await self.shutdown([self._listener])
