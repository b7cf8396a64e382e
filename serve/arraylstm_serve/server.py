"""One server process: the socket, uvicorn, and a clean way out."""

from __future__ import annotations

import gc
import signal
import socket
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from arraylstm_serve import __version__
from arraylstm_serve.api import Application
from arraylstm_serve.bundle import Bundle
from arraylstm_serve.engine import Engine, open_engine
from arraylstm_serve.errors import StartupError
from arraylstm_serve.problems import MALFORMED_REQUEST, MEDIA_TYPE, Problem
from arraylstm_serve.service import Service
from arraylstm_serve.settings import Settings

YOUNG_OBJECTS = 50_000
"""Allocations between two collections of the youngest generation; a request leaves no cycles behind."""


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which refuses what it cannot parse in the words of the rest of the API."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, or a path longer than its parser takes, and hang up."""
        detail = "What was sent is not HTTP/1.1, or its path has more than 65535 bytes."
        body = Problem(MALFORMED_REQUEST, detail).body()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """A uvicorn server that says where it listens and stops being ready when told to stop."""

    def __init__(self, config: uvicorn.Config, service: Service, greeting: str) -> None:
        super().__init__(config)
        self._service = service
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, then say so."""
        await super().startup(sockets)
        print(self._greeting, flush=True)  # noqa: T201 - a command line prints

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        self._service.draining = True
        super().handle_exit(sig, frame)


def serve(path: Path, settings: Settings) -> None:
    """Serve the bundle at path until SIGTERM or SIGINT.

    Raises:
        StartupError: the bundle, the device, the memory or the address cannot be had.
    """
    bundle = Bundle.load(path)
    listener = listen(settings.host, settings.port)
    engine = open_engine(bundle, settings.device, settings.threads)
    service = Service(bundle, engine, settings)
    engine.warm_up(settings.max_batch)
    config = uvicorn.Config(
        Application(service),
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    settle_memory()
    leave_exit_status_alone()
    Server(config, service, greeting(service, engine, listener)).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; connections are refused until the server accepts them.

    Raises:
        StartupError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise StartupError(
            f"cannot listen on host {host} port {port}: {error.strerror}; choose others with --host and --port."
        ) from error
    return listener


def greeting(service: Service, engine: Engine, listener: socket.socket) -> str:
    """What the person who started the server reads."""
    bundle, settings = service.bundle, service.settings
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    megabytes = service.arena_bytes / 1e6
    return "\n".join(
        (
            f"arraylstm-serve {__version__}",
            f"  model     {bundle.fingerprint}",
            f"  cell      {bundle.manifest.model.cell}, {len(bundle.vocabulary)} items",
            f"  device    {engine.provider}, threads {settings.threads}",
            f"  sessions  at most {settings.max_sessions}, in at most {megabytes:.1f} MB of memory",
            f"  serving   {url}",
            f"  docs      {url}/docs",
        )
    )


def settle_memory() -> None:
    """Keep the garbage collector away from everything loaded so far, and let it run seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def leave_exit_status_alone() -> None:
    """Ignore the signals that uvicorn raises again once it has stopped; the process then exits with 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
