"""One server process: the socket, uvicorn, and a clean way out."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from arraylstm_serve import __version__
from arraylstm_serve.api import Application
from arraylstm_serve.bundle import Bundle
from arraylstm_serve.engine import Engine, open_engine
from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.problems import MALFORMED_REQUEST, MEDIA_TYPE, Problem
from arraylstm_serve.service import Service
from arraylstm_serve.settings import Settings

YOUNG_OBJECTS = 50_000
"""Allocations between two collections of the youngest generation.

An answered request leaves no cycles behind; a refused one may.
"""

MAX_HEAD = 65_536
"""Bytes of a request that may come without its headers being complete."""

LINGER = 1.0
"""Seconds that a refused connection stays open, for a client that reads the refusal only after all it has to send."""


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which refuses what it cannot parse in the words of the rest of the API."""

    _head_bytes = 0
    _in_head = False
    _refused = False

    def data_received(self, data: bytes) -> None:
        """Take bytes, or drop them after a refusal; a head that goes on beyond MAX_HEAD of them is refused."""
        if self._refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self._refused:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Let the request begin."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count the bytes of the next head from here."""
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, or a head longer than MAX_HEAD, and hang up."""
        detail = f"What was sent is not HTTP/1.1, or its path and headers have more than {MAX_HEAD} bytes."
        body = Problem(MALFORMED_REQUEST, detail).body()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.write_eof()
        self._refused = True
        self.loop.call_later(LINGER, self.transport.close)


class Server(uvicorn.Server):
    """A uvicorn server that says where it listens and stops being ready when told to stop.

    Args:
        config: uvicorn's own settings.
        service: told when the server is on its way out.
        greeting: printed once connections are accepted.
        signals: those that came before uvicorn handles them; the server does not start where there are any.
    """

    def __init__(self, config: uvicorn.Config, service: Service, greeting: str, signals: Sequence[int]) -> None:
        super().__init__(config)
        self._service = service
        self._greeting = greeting
        self._signals = signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, then say so.

        Raises:
            StartupError: another process listens there by now.
        """
        if self._signals:
            self.should_exit = True
            return
        for listener in sockets or ():
            with address_faults(*listener.getsockname()[:2]):
                listener.listen(self.config.backlog)
        await super().startup(sockets)
        print(self._greeting, flush=True)  # noqa: T201 - a command line prints

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        self._service.draining = True
        super().handle_exit(sig, frame)


def serve(path: Path, settings: Settings) -> None:
    """Serve the bundle at path until SIGTERM or SIGINT, which may also come before it is served.

    Raises:
        StartupError: the bundle, the device, the memory or the address cannot be had.
    """
    signals = record_signals()
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
        limit_concurrency=settings.max_connections + 1,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    settle_memory()
    Server(config, service, greeting(service, engine, listener), signals).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; connections are refused until the server accepts them.

    Raises:
        StartupError: the address cannot be bound.
    """
    with address_faults(host, port):
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
    return listener


@contextmanager
def address_faults(host: str, port: int) -> Iterator[None]:
    """Turn what keeps an address from being had into a StartupError."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise StartupError(
            f"cannot listen on host {host} port {port}: {cause(error)}; choose others with --host and --port."
        ) from error


def greeting(service: Service, engine: Engine, listener: socket.socket) -> str:
    """What the person who started the server reads."""
    bundle, settings = service.bundle, service.settings
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    megabytes = service.memory_bound / 1e6
    return "\n".join(
        (
            f"arraylstm-serve {__version__}",
            f"  model     {bundle.fingerprint}",
            f"  cell      {bundle.manifest.model.cell}, {len(bundle.vocabulary)} items",
            f"  device    {engine.provider}, threads {settings.threads}",
            f"  sessions  at most {settings.max_sessions}, states and remembered answers in at most {megabytes:.1f} MB",
            f"  serving   {url}",
            f"  docs      {url}/docs",
        )
    )


def settle_memory() -> None:
    """Keep the garbage collector away from everything loaded so far, and let it run seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def record_signals() -> list[int]:
    """Collect the signals that uvicorn does not handle yet, and those it raises again once it has stopped.

    Neither kind ends the process, so its exit status stays 0.
    """
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    return signals
