"""One server process: the socket, uvicorn, and a clean end."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import uvicorn

from arraylstm_serve import __version__
from arraylstm_serve.admin import AdminApplication
from arraylstm_serve.application import Application
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.open import open_accelerator, open_host, open_host_graph
from arraylstm_serve.engine.step_graph import StepGraph
from arraylstm_serve.errors import cause
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.door import Door
from arraylstm_serve.server import logs
from arraylstm_serve.server.config import Config
from arraylstm_serve.server.early import drop_unwritable_output, record_signals, take_hangups
from arraylstm_serve.server.listening import AdminServer, ListeningServer
from arraylstm_serve.server.memory import demands, memory_limit, too_much
from arraylstm_serve.server.open_files import allow_files
from arraylstm_serve.server.protocol import Protocol
from arraylstm_serve.server.renewal import Renewal
from arraylstm_serve.server.sockets import admin_bound, bound, url_of
from arraylstm_serve.server.sockets import listen as listen
from arraylstm_serve.server.stream import StreamProtocol
from arraylstm_serve.server.tls import server_context
from arraylstm_serve.server.unix_socket import AF_UNIX
from arraylstm_serve.sessions.limits import Connections
from arraylstm_serve.sessions.model import slot_count
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.settings import MEMORY, Settings, warn_of_unknown_variables
from arraylstm_serve.stores.open import open_store

YOUNG_OBJECTS = 50_000
"""How many allocations lie between two garbage collections of the youngest generation.

Collections can be rare: an answered request leaves no reference cycles behind, only a refused one may.
"""


logger = logging.getLogger(__name__)


class Server(ListeningServer):
    """The public listener's server. It prints where it listens, and is no longer ready after a signal to stop.

    Args:
        config: uvicorn's own settings.
        service: the service; its `draining` and `stopping` are set when the server begins to stop.
        greeting: printed once connections are accepted.
        signals: the signals received before uvicorn handles them; if there are any, the server does not start.
        admin: the admin listener; it accepts connections until all public ones have ended.
        renew: called after SIGHUP.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        greeting: str,
        signals: Sequence[int],
        admin: AdminServer | None = None,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, service.settings.request_timeout)
        self._service = service
        self._greeting = greeting
        self._signals = signals
        self._admin = admin
        self._renew = renew

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, then say so.

        Raises:
            StartupError: another process has begun to listen on the address.
        """
        if self._signals:
            self.should_exit = True
            return
        await self._open_store()
        await super().startup(sockets)
        if self._admin:
            await self._admin.open()
        say(self._greeting)

    async def _open_store(self) -> None:
        """Open the store of sessions, if there is one.

        Raises:
            StartupError: it cannot be used.
        """
        settings = self._service.settings
        if settings.sessions == MEMORY:
            return
        store = await open_store(
            settings.sessions, durable=True, ttl=settings.session_ttl, timeout=settings.store_timeout
        )
        for warning in store.warnings:
            logger.warning("--sessions: %s", warning)
        logger.info("sessions are kept in %s", store.describe())
        self._service.keep(store)

    async def on_tick(self, counter: int) -> bool:
        """Do what is done ten times a second; return whether to stop."""
        if self._admin:
            await self._admin.on_tick(counter)
        if take_hangups():
            self._renew()
            for connection in list(self.server_state.connections):
                if isinstance(connection, StreamProtocol):
                    connection.heed_key()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: answer what has come, and end every connection; the admin listener's last."""
        await super().shutdown(sockets)
        if self._admin:
            await self._admin.close()
        await self._service.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, and say on /readyz that the server is draining."""
        self._service.draining = self._service.stopping = True
        super().handle_exit(sig, frame)


def serve(path: Path, settings: Settings) -> None:
    """Serve the bundle at `path` until SIGTERM or SIGINT, which may also come while the server starts.

    Raises:
        StartupError: the settings contradict each other, the bundle, the device, a file or an address cannot be used,
            or the memory is not enough.
    """
    signals = record_signals()
    if signals:
        return
    logs.configure(settings)
    warn_of_unknown_variables()
    settings.check_admin()
    bundle = Bundle.load(path)
    keys, admin_keys = Keys.load(settings.api_keys), Keys.load(settings.admin_keys, "--admin-keys")
    with bound(settings) as listener, admin_bound(settings) as admin_listener:
        allow_files(settings)
        service = Service(bundle, allocate(bundle, settings), settings)
        service.model.engine.warm_up(settings.max_batch)
        configs = [configure(service, keys)]
        admin = None
        if admin_listener:
            configs.append(configure_admin(service, admin_keys))
            admin = AdminServer(configs[-1], settings.request_timeout, admin_listener)
        renewal = Renewal([given for given in (keys, admin_keys) if given], configs)
        settle_memory()
        text = greeting(service, keys, listener, admin_listener)
        Server(configs[0], service, text, signals, admin, renewal).run([listener])


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


def configure(service: Service, keys: Keys | None) -> Config:
    """Return the settings of the public listener's server.

    Raises:
        StartupError: the certificate or its key cannot be used.
    """
    return _configured(Application(service, keys), service.settings, service, service.connections)


def configure_admin(service: Service, keys: Keys | None) -> Config:
    """Return the settings of the admin listener's server; see `configure`."""
    settings = service.settings.of_admin
    connections = Connections(settings.max_connections, None, proxy=lambda address: False)  # none stands before it
    return _configured(AdminApplication(service, settings, keys), settings, service, connections)


def _configured(app: Door, settings: Settings, service: Service, connections: Connections) -> Config:
    config = Config(
        app,
        settings,
        service.counters,
        connections,
        service.heavy,
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


def places(settings: Settings, listener: socket.socket, admin: socket.socket | None) -> list[str]:
    """Return the lines that say where the server is, its admin listener, its console and its documentation."""
    scheme = "https" if settings.tls_certificate else "http"
    keys = "asked for" if settings.admin_keys else "none asked for"
    admins = [f"  admin     {url_of(admin, scheme)}, API keys {keys}"] if admin else []
    if listener.family == AF_UNIX:
        return [f"  serving   unix:{listener.getsockname()}", *admins]
    url = url_of(listener, scheme)
    host, port = listener.getsockname()[:2]
    here = f"{scheme}://localhost:{port}" if ip_address(host).is_unspecified else url
    docs = f"{here}/docs" if settings.docs == "on" else "off"
    return [f"  serving   {url}", *admins, f"  console   {here}/", f"  docs      {docs}"]


def greeting(service: Service, keys: Keys | None, listener: socket.socket, admin: socket.socket | None = None) -> str:
    """Return the text for the person who started the server."""
    model, settings = service.model, service.settings
    asked = "asked for" if keys else "none asked for"
    needed = demands(model.bundle, settings)
    megabytes = sum(needed.values()) / 1e6
    return "\n".join(
        (
            f"arraylstm-serve {__version__}",
            f"  model     {model.fingerprint}",
            f"  cell      {model.bundle.manifest.model.cell}, {len(model.vocabulary)} items",
            f"  device    {model.engine.device} ({model.engine.provider}), threads {settings.threads}",
            f"  sessions  at most {settings.max_sessions} in memory, kept in {kept_in(settings.sessions)}",
            f"  memory    at most {megabytes:.1f} MB more than now, for sessions, answers and connections",
            f"  API keys  {asked}",
            *places(settings, listener, admin),
        )
    )


def kept_in(sessions: str) -> str:
    """Return where sessions are kept, in words without a password."""
    return "memory alone" if sessions == MEMORY else sessions.rpartition("@")[2] if "@" in sessions else sessions


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
