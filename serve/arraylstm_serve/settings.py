"""Every setting of the server, written once; flags and `ARRAYLSTM_*` variables derive from it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Env
from cyclopts.validators import Number

from arraylstm_serve.errors import StartupError
from arraylstm_serve.hosts import ANY_HOST, LOCAL, Hosts, is_loopback, validate_host
from arraylstm_serve.origins import validate_origin
from arraylstm_serve.proxies import validate_proxy, validate_root_path

Device = Literal["auto", "cpu", "cuda"]
TRILLION = 10**12
"""The largest count allowed: more than any machine can hold, and small enough to compute with."""
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=TRILLION))]
MEBIBYTE = 2**20
TEN_YEARS = 315_360_000
MEMORY = "memory"
"""The value of --sessions if no store keeps them."""
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=TEN_YEARS))]
LARGEST_BATCH = 4096
"""A CPU is fastest with batches of a few hundred rows; larger ones only take more time and memory."""
MOST_THREADS = 1024
MOST_REPLICAS = 64
ADMIN_CONNECTIONS = 32
"""Most connections of the admin listener open at once. They do not count among --max-connections."""
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
Host = Annotated[str, Parameter(validator=validate_host)]
Proxy = Annotated[str, Parameter(validator=validate_proxy)]
Origin = Annotated[str, Parameter(validator=validate_origin)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve; the defaults suit one small machine."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: Port = 8080
    """Port to listen on; 0 picks a free one."""

    uds: Path | None = None
    """Path of a Unix socket to listen on, in place of a host and port."""

    root_path: Annotated[str, Parameter(validator=validate_root_path)] = ""
    """Path under which a proxy shows the server, such as /predict. The proxy may pass it on or take it off."""

    forwarded_allow_ips: tuple[Proxy, ...] = ()
    """IP address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed, or * for any; may be
    repeated. With --uds only * counts. Without this setting nobody's are."""

    device: Device = "auto"
    """Where the model runs; auto means CUDA if onnxruntime has it, else the CPU."""

    tf32: bool = False
    """Let CUDA multiply in TF32: faster, but answers differ by more than 1e-5."""

    gpu_memory: Count | None = None
    """Most bytes of GPU memory that onnxruntime may use for weights and intermediate results; the sessions' states are
    not part of it."""

    threads: Annotated[int, Parameter(validator=Number(gte=1, lte=MOST_THREADS))] = 1
    """Threads that one run of the model may use; at most 1024."""

    sessions: str = MEMORY
    """Where sessions are kept: memory (a restart forgets them), sqlite:PATH, or redis://HOST:PORT/DB and its relatives
    (valkey://; rediss:// with TLS; redis+cluster://, redis+sentinel://)."""

    ack: Literal["store", "memory"] = "store"
    """When an answer leaves: once the store has the session (store), or before (memory). With memory, the end of the
    process by anything but SIGTERM loses the newest steps of at most --max-unsaved sessions."""

    max_unsaved: Count = 1000
    """With --ack memory, the most sessions whose newest steps the store may lack; further answers wait."""

    sticky: bool = False
    """All requests of a session reach this server, as with a balancer that hashes the session's id. --ack memory needs
    this where servers share the store."""

    store_timeout: Seconds = 2.0
    """Seconds after which a call to Redis or Valkey has failed; its requests are answered 503. SQLite's disk has five
    times as long."""

    replicas: Annotated[int, Parameter(validator=Number(gte=1, lte=MOST_REPLICAS))] = 1
    """Servers to start, at most 64, on one store that servers can share; one that ends is started again. They listen
    at --port, --admin-port and the ports after them, or at --uds with .0, .1 and so on behind it."""

    balancer: Literal["auto", "nginx", "none"] = "auto"
    """What stands before --replicas: nginx, which then listens at --port and keeps a session on one replica; or none of
    ours. auto takes nginx if it is on the PATH and none of --uds, --root-path, --forwarded-allow-ips and
    --tls-certificate is given."""

    max_sessions: Count = 20_000
    """Most sessions held in memory at once; a new one replaces the least recently used idle one, which a store still
    has."""

    max_answer_bytes: Annotated[int, Parameter(validator=Number(gte=MEBIBYTE, lte=TRILLION))] = 128 * MEBIBYTE
    """Most bytes of answers remembered for idempotency keys, at least 1 MiB; beyond it the least recently used idle
    sessions that hold such answers are evicted."""

    session_ttl: Seconds = 1800.0
    """Seconds without use after which a session expires; at most ten years."""

    max_batch: Annotated[int, Parameter(validator=Number(gte=1, lte=LARGEST_BATCH))] = 64
    """Most sessions stepped by one run of the model; at most 4096."""

    max_pending: Count = 1024
    """Most requests waiting or running at once; further ones are answered 503."""

    max_session_pending: Count = 64
    """Most requests of one session waiting or running at once; further ones are answered 429."""

    request_timeout: Seconds = 30.0
    """Seconds that a request may take to arrive, and then to wait for its turn; a later one is answered 408 or 503 and
    not applied."""

    keep_alive: Seconds = 75.0
    """Seconds that a connection stays open between two requests; a balancer in front should close its connections
    earlier than that."""

    max_items: Count = 1000
    """Most items in one event."""

    max_events: Count = 1000
    """Most events in one bulk request."""

    max_predictions: Count = 100_000
    """Most predictions that the events of one bulk request may ask for together."""

    quota_sessions: Count | None = None
    """Most sessions of one client: a name in --api-keys or, without keys, an address. A further one replaces the
    client's least recently used idle one. Without this setting, whoever holds most loses first when --max-sessions is
    reached."""

    quota_answer_bytes: Count | None = None
    """Most bytes of answers remembered for one client. Without this setting, whoever holds most loses first when
    --max-answer-bytes is reached."""

    quota_pending: Count | None = None
    """Most requests of one client waiting or running at once; further ones are answered 503. In any case a client may
    have only seven times as many as could still come: seven eighths of --max-pending if it is alone."""

    quota_connections: Count | None = None
    """Most connections of one client open at once; further ones are answered 503 and closed. In any case a client may
    have only seven times as many as could still come: seven eighths of --max-connections if it is alone. Proxies in
    --forwarded-allow-ips may have any number."""

    quota_rate: Annotated[float, Parameter(validator=Number(gt=0, lte=TRILLION))] | None = None
    """Most requests a second of one client, each event of a bulk request and each message of a stream counted as one;
    further ones are answered 429. It may save up one second's. Without this setting there is no such bound."""

    unknown_items: Literal["model", "reject", "skip"] = "model"
    """How to treat an item that the model has no label for: model takes it for the model's unknown item, and refuses it
    if there is none; reject always refuses it; skip leaves it out, as if it had not been sent."""

    max_connections: Count = 1024
    """Most connections open at once; further ones are answered 503 and closed."""

    max_body: Count = 262_144
    """Most bytes in one request body."""

    max_body_bytes: Annotated[int, Parameter(validator=Number(gte=MEBIBYTE, lte=TRILLION))] = 32 * MEBIBYTE
    """Most memory for request bodies of more than 4 KiB that are held at once, at least 1 MiB; a body counts eight
    times, as it is decoded. Further ones wait, and are answered 503 after --request-timeout."""

    max_unread_bytes: Annotated[int, Parameter(validator=Number(gte=MEBIBYTE, lte=TRILLION))] = 32 * MEBIBYTE
    """Most bytes of answers that clients do not read, at least 1 MiB; beyond it those connections are closed whose
    clients stopped reading first."""

    shutdown_timeout: Annotated[int, Parameter(validator=Number(gte=1, lte=TEN_YEARS))] = 30
    """Seconds that requests under way have to finish after SIGTERM."""

    api_keys: Path | None = None
    """File of the accepted API keys: a line `NAME SHA256 [SCOPE]` for each, as `arraylstm-serve make-key NAME` prints
    it. Each name has its own sessions. Without this file no key is needed. SIGHUP lets the server read it again."""

    admin_port: Port | None = None
    """Port of the admin listener, which answers /healthz, /readyz, /metrics and /admin/drain, also while all of
    --max-connections are taken; 0 picks a free one. Without this setting there is no admin listener."""

    admin_host: str = "127.0.0.1"
    """Address of the admin listener. If it is not a loopback address, --admin-keys must be given."""

    admin_keys: Path | None = None
    """File of the admin listener's own keys, in the form of --api-keys. If it is given, the listener asks for one of
    them for all but /healthz, /readyz and /openapi.json."""

    public_metrics: Literal["on", "off"] = "on"
    """Whether /healthz, /readyz and /metrics are on the public listener too; off needs --admin-port."""

    cors_origin: tuple[Origin, ...] = ()
    """Origin whose pages may call the server from a browser, such as https://shop.example, or * for any; may be
    repeated."""

    allowed_host: tuple[Host, ...] = ()
    """Name by which clients may call the server, such as shop.example or *.shop.example, or * for any; may be repeated.
    IP addresses and localhost are always allowed. Without this setting, a server that listens on a loopback address
    allows no other names, and any other server allows all."""

    docs: Literal["on", "off"] = "on"
    """Whether /docs and /openapi.json describe the API to everybody."""

    tls_certificate: Path | None = None
    """PEM file of the certificate, for HTTPS on every listener. SIGHUP lets the server read it again."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key."""

    log_format: Literal["text", "json"] = "text"
    """Format of the log lines on standard error."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of the log lines to write."""

    access_log: bool = False
    """Write a log line for each answered request."""

    @cached_property
    def hosts(self) -> Hosts | None:
        """The names by which clients may call the server; None for any."""
        local = self.uds is None and is_loopback(self.host)
        if ANY_HOST in self.allowed_host or not (self.allowed_host or local):
            return None
        return Hosts((*LOCAL, *self.allowed_host))

    @property
    def of_admin(self) -> Settings:
        """The settings that the admin listener has in place of the public one's."""
        return replace(
            self,
            host=self.admin_host,
            port=self.admin_port or 0,
            uds=None,
            root_path="",
            forwarded_allow_ips=(),
            cors_origin=(),
            max_connections=ADMIN_CONNECTIONS,
            shutdown_timeout=1,
        )

    def check_sessions(self) -> None:
        """Refuse settings of the store that contradict each other.

        Raises:
            StartupError: they do.
        """
        if self.sessions == MEMORY and (self.ack == "memory" or self.sticky):
            raise StartupError("--ack memory and --sticky are for a store; name one with --sessions.")
        if self.ack == "memory" and not self.sticky and not self.sessions.startswith("sqlite:"):
            raise StartupError(
                "--ack memory loses steps if two servers that share a store get requests of one session; give --sticky "
                "if the balancer sends them all to one server."
            )

    def check_admin(self) -> None:
        """Refuse settings of the admin listener that contradict each other.

        Raises:
            StartupError: there is one without --admin-port, or strangers could reach the listener without a key.
        """
        if self.admin_port is None:
            for flag, given in (
                ("--admin-host", self.admin_host != Settings.admin_host),
                ("--admin-keys", self.admin_keys is not None),
            ):
                if given:
                    raise StartupError(f"{flag} is for the admin listener; give --admin-port too.")
            if self.public_metrics == "off":
                raise StartupError(
                    "--public-metrics off leaves nobody who answers /healthz, /readyz and /metrics; give --admin-port."
                )
        elif self.admin_keys is None and not is_loopback(self.admin_host):
            raise StartupError(
                f"--admin-host {self.admin_host} is not a loopback address, so others could reach the admin listener; "
                "give --admin-keys too."
            )


VARIABLE_PREFIX = "ARRAYLSTM_"
NAMES = ["BUNDLE", *(field.name.upper() for field in fields(Settings))]
"""The names that may follow the prefix."""

_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT\w*)=.*"
    r"|\w+_PORT(_\d+_[A-Z]+)?=(tcp|udp|sctp)://.*"
    r"|\w+_PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR)=.*",
    re.DOTALL,
)

logger = logging.getLogger(__name__)


class Variables(Env):
    """Settings from environment variables, service links excepted.

    Kubernetes sets such links in every pod for the Services of its namespace. If one is called `arraylstm`,
    ARRAYLSTM_PORT is `tcp://10.0.0.1:8080`.
    """

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Set the arguments from variables, except from service links."""
        super().__call__(app, commands, arguments)
        for argument in arguments:
            argument.tokens = [
                token for token in argument.tokens if not is_service_link(token.keyword or "", token.value)
            ]


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes, or Docker's --link, has set a variable to say where a service is."""
    return _SERVICE_LINK.fullmatch(f"{name}={value}") is not None


def warn_of_unknown_variables() -> None:
    """Log the variables that look like settings and are not: service links in one line, others in a warning each."""
    links = []
    for variable in sorted(name for name in os.environ if name.startswith(VARIABLE_PREFIX)):
        name = variable.removeprefix(VARIABLE_PREFIX)
        if is_service_link(variable, os.environ[variable]):
            links.append(variable)
        elif name not in NAMES:
            nearest = get_close_matches(name, NAMES, n=1)
            advice = (
                f"did you mean {VARIABLE_PREFIX}{nearest[0]}?" if nearest else "arraylstm-serve --help lists them all"
            )
            logger.warning("%s is not a setting; %s", variable, advice)
    if links:
        logger.info("ignored these variables, which are Kubernetes's links to services: %s", ", ".join(links))
