"""One server process: the socket, uvicorn, and a clean end."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import uvicorn

from arraylstm_serve import __version__
from arraylstm_serve.application import Application
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.open import open_accelerator, open_host, open_host_graph
from arraylstm_serve.engine.step_graph import StepGraph
from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.server import logs
from arraylstm_serve.server.config import Config
from arraylstm_serve.server.early import drop_unwritable_output, record_signals
from arraylstm_serve.server.memory import demands, memory_limit, too_much
from arraylstm_serve.server.open_files import allow_files
from arraylstm_serve.server.protocol import Protocol
from arraylstm_serve.server.stalls import end_stalled
from arraylstm_serve.server.stream import StreamProtocol
from arraylstm_serve.server.tls import Listener, server_context
from arraylstm_serve.server.unix_socket import AF_UNIX, path_faults, unix_socket
from arraylstm_serve.sessions.model import slot_count
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.settings import Settings, warn_of_unknown_variables

YOUNG_OBJECTS = 50_000
"""How many allocations lie between two garbage collections of the youngest generation.

Collections can be rare: an answered request leaves no reference cycles behind, only a refused one may.
"""

STOP_PATIENCE = 5.0
"""Seconds that a stopping server gives a connection whose client reads nothing."""

RECEIVE_BUFFER = 65_536
"""Bytes that the kernel keeps of a connection that is not read, about; of its own accord it would keep megabytes.

It is also what comes in one piece, and so what is held of requests sent ahead: Linux doubles it, 128 KB at most.
"""

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server that prints where it listens, and is no longer ready after a signal to stop.

    Args:
        config: uvicorn's own settings.
        service: the service; its `draining` is set when the server begins to stop.
        greeting: printed once connections are accepted.
        signals: the signals received before uvicorn handles them; if there are any, the server does not start.
    """

    def __init__(self, config: uvicorn.Config, service: Service, greeting: str, signals: Sequence[int]) -> None:
        super().__init__(config)
        self._service = service
        self._greeting = greeting
        self._signals = signals
        self._timeout = service.settings.request_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, then say so.

        Raises:
            StartupError: another process has begun to listen on the address.
        """
        if self._signals:
            self.should_exit = True
            return
        for listener in sockets or ():
            with faults_of(listener):
                listener.listen(self.config.backlog)
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            for listener in sockets or ():
                self.servers.append(self._listen(listener, self.config.ssl))  # type: ignore[arg-type]
        connections = self.server_state.connections
        self._looking = asyncio.get_running_loop().create_task(end_stalled(connections, self._patience))
        say(self._greeting)

    def _patience(self) -> float:
        return min(STOP_PATIENCE, self._timeout) if self.should_exit else self._timeout

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: answer what has come, and end every connection."""
        await super().shutdown(sockets)
        self._looking.cancel()

    def _listen(self, listener: socket.socket, context: ssl.SSLContext) -> Listener:
        """Accept encrypted connections."""
        config, state = self.config, self.server_state
        new_protocol = partial(config.http_protocol_class, config, state, self.lifespan.state)  # type: ignore[call-arg]
        return Listener(listener, context, new_protocol, state.connections, self._service.settings)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, and say on /readyz that the server is draining."""
        self._service.draining = True
        super().handle_exit(sig, frame)


def serve(path: Path, settings: Settings) -> None:
    """Serve the bundle at `path` until SIGTERM or SIGINT, which may also come while the server starts.

    Raises:
        StartupError: the bundle, the device or the address cannot be used, or the memory is not enough.
    """
    signals = record_signals()
    if signals:
        return
    logs.configure(settings)
    warn_of_unknown_variables()
    bundle = Bundle.load(path)
    keys = None if settings.api_keys is None else Keys.load(settings.api_keys)
    with bound(settings) as listener:
        allow_files(settings.max_connections)
        service = Service(bundle, allocate(bundle, settings), settings)
        service.model.engine.warm_up(settings.max_batch)
        config = configure(service, keys)
        settle_memory()
        Server(config, service, greeting(service, keys, listener), signals).run([listener])


def allocate(bundle: Bundle, settings: Settings) -> Engine:
    """Open the engine, with memory for everything that the settings allow.

    Raises:
        StartupError: the machine cannot hold what the bounds need, or the engine cannot be opened.
    """
    slots = slot_count(settings)
    # The graph is opened before the memory is computed: a manifest may claim what its graph does not have.
    opened = open_accelerator(bundle, settings, slots) or open_host_graph(bundle, settings)
    needed = demands(bundle, settings, on_host=isinstance(opened, StepGraph))
    if sum(needed.values()) > memory_limit():
        raise too_much(needed, settings)
    try:
        return open_host(bundle, opened, slots) if isinstance(opened, StepGraph) else opened
    except MemoryError as error:
        raise too_much(needed, settings) from error


def configure(service: Service, keys: Keys | None) -> uvicorn.Config:
    """Return uvicorn's settings for a service.

    Raises:
        StartupError: the certificate or its key cannot be used.
    """
    settings = service.settings
    config = Config(
        Application(service, keys),
        settings,
        service.counters,
        loop="auto",  # uvloop, or asyncio's own where there is none: on Windows
        http=Protocol,
        ws=StreamProtocol,
        ws_max_size=settings.max_body,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        server_header=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    config.load()
    config.ssl = server_context(settings.tls_certificate, settings.tls_key)
    return config


@contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """Bind the socket that the settings name; see `listen` and `unix_socket`."""
    if settings.uds is None:
        yield listen(settings.host, settings.port)
    else:
        with unix_socket(settings.uds) as listener:
            yield listener


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; connections are refused until the server listens on it.

    Raises:
        StartupError: the address cannot be bound.
    """
    with address_faults(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # where a second server could take the address over
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # each connection inherits it
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    return listener


@contextmanager
def address_faults(host: str, port: int) -> Iterator[None]:
    """Turn an error in using an address into a StartupError."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise StartupError(
            f"cannot listen on host {host} port {port}: {cause(error)}; choose others with --host and --port."
        ) from error


def faults_of(listener: socket.socket) -> AbstractContextManager[None]:
    """Turn an error in using a bound socket into a StartupError."""
    address = listener.getsockname()
    return path_faults(address) if listener.family == AF_UNIX else address_faults(*address[:2])


def places(settings: Settings, listener: socket.socket) -> list[str]:
    """Return the lines that say where the server is, its console and its documentation."""
    scheme = "https" if settings.tls_certificate else "http"
    if listener.family == AF_UNIX:
        return [f"  serving   unix:{listener.getsockname()}"]
    host, port = listener.getsockname()[:2]
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    here = f"{scheme}://localhost:{port}" if ip_address(host).is_unspecified else url
    docs = f"{here}/docs" if settings.docs == "on" else "off"
    return [f"  serving   {url}", f"  console   {here}/", f"  docs      {docs}"]


def greeting(service: Service, keys: Keys | None, listener: socket.socket) -> str:
    """Return the text for the person who started the server."""
    model, settings = service.model, service.settings
    asked = "asked for" if keys else "none asked for"
    needed = demands(model.bundle, settings)
    megabytes = (sum(needed.values()) - needed["max_batch"]) / 1e6
    return "\n".join(
        (
            f"arraylstm-serve {__version__}",
            f"  model     {model.fingerprint}",
            f"  cell      {model.bundle.manifest.model.cell}, {len(model.vocabulary)} items",
            f"  device    {model.engine.device} ({model.engine.provider}), threads {settings.threads}",
            f"  sessions  at most {settings.max_sessions}, states and remembered answers in at most {megabytes:.1f} MB",
            f"  API keys  {asked}",
            *places(settings, listener),
        )
    )


def say(text: str) -> None:
    """Print a text. If that fails, log why: the server serves all the same."""
    try:
        print(text, flush=True)  # noqa: T201 - a command line prints
    except OSError as error:
        logger.warning("the greeting cannot be printed: %s", cause(error))
        drop_unwritable_output()


def settle_memory() -> None:
    """Exempt everything loaded so far from garbage collection, and make collections rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
