"""Every setting of the server, written once; flags and `ARRAYLSTM_*` variables derive from it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Env
from cyclopts.validators import Number

from arraylstm_serve.origins import validate_origin

Device = Literal["auto", "cpu", "cuda"]
TRILLION = 10**12
"""More than any machine holds of anything counted here, and little enough to compute with."""
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=TRILLION))]
MEBIBYTE = 2**20
TEN_YEARS = 315_360_000
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=TEN_YEARS))]
LARGEST_BATCH = 4096
"""A CPU steps most rows a second in batches of some hundred; larger ones only take longer, and more memory."""
MOST_THREADS = 1024
Origin = Annotated[str, Parameter(validator=validate_origin)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve; the defaults suit one small machine."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8080
    """Port to listen on; 0 picks a free one."""

    device: Device = "auto"
    """Where the model runs; auto takes CUDA where onnxruntime has it, else the CPU."""

    tf32: bool = False
    """Let CUDA round what it multiplies to TF32: faster, and answers are off by more than 1e-5."""

    gpu_memory: Count | None = None
    """Most bytes that onnxruntime may take on the GPU for weights and between steps, the sessions' own apart."""

    threads: Annotated[int, Parameter(validator=Number(gte=1, lte=MOST_THREADS))] = 1
    """Threads that one run of the model may use; at most 1024."""

    max_sessions: Count = 20_000
    """Sessions held at once; the least recently used idle one makes room for a new one."""

    max_answer_bytes: Annotated[int, Parameter(validator=Number(gte=MEBIBYTE, lte=TRILLION))] = 256 * MEBIBYTE
    """Bytes of answers remembered for idempotency keys, at least 1 MiB; the least recently used idle sessions that have
    such make room."""

    session_ttl: Seconds = 1800.0
    """Seconds without use after which a session expires; at most ten years."""

    max_batch: Annotated[int, Parameter(validator=Number(gte=1, lte=LARGEST_BATCH))] = 64
    """Most sessions stepped by one run of the model; at most 4096."""

    max_pending: Count = 1024
    """Requests waiting or running at once; further ones are answered 503."""

    max_session_pending: Count = 64
    """Requests of one session waiting or running at once; further ones are answered 429."""

    request_timeout: Seconds = 30.0
    """Seconds after which a request that still waits for its turn is answered 503 and not applied."""

    max_items: Count = 1000
    """Most items one event may carry."""

    max_events: Count = 1000
    """Most events one bulk request may carry."""

    max_predictions: Count = 100_000
    """Most predictions that the events of one bulk request may ask for in all."""

    unknown_items: Literal["model", "reject"] = "model"
    """What an item that the model has no label for is: the model's unknown item where it has one, or refused."""

    max_connections: Count = 1024
    """Connections open at once; further ones are answered 503 and closed."""

    max_body: Count = 262_144
    """Most bytes one request body may have."""

    shutdown_timeout: Annotated[int, Parameter(validator=Number(gte=1, lte=TEN_YEARS))] = 30
    """Seconds that requests in flight get to finish after SIGTERM."""

    api_keys: Path | None = None
    """File of the API keys that are let in, a line `NAME SHA256` each, as `arraylstm-serve make-key NAME` prints them.

    Every name has its own sessions. Without it everybody is let in.
    """

    cors_origin: tuple[Origin, ...] = ()
    """Origin, such as https://shop.example, whose pages may call the server from a browser, or * for any.

    May be repeated.
    """

    tls_certificate: Path | None = None
    """PEM file of the certificate, for HTTPS."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key."""

    log_format: Literal["text", "json"] = "text"
    """How log lines look, on standard error."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log lines that are written."""

    access_log: bool = False
    """Write a line for each request answered."""


PREFIX = "ARRAYLSTM_"
NAMES = ["BUNDLE", *(field.name.upper() for field in fields(Settings))]
"""What may follow the prefix."""

_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT\w*)=.*"
    r"|\w+_PORT(_\d+_[A-Z]+)?=(tcp|udp|sctp)://.*"
    r"|\w+_PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR)=.*",
    re.DOTALL,
)

logger = logging.getLogger(__name__)


class Variables(Env):
    """Settings from variables, links to services apart.

    Kubernetes gives every pod links to the Services of its namespace: one called `arraylstm` makes ARRAYLSTM_PORT
    `tcp://10.0.0.1:8080`.
    """

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Give the arguments what variables say, service links apart."""
        super().__call__(app, commands, arguments)
        for argument in arguments:
            argument.tokens = [
                token for token in argument.tokens if not is_service_link(token.keyword or "", token.value)
            ]


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes, or Docker's --link, tells by a variable where a service is."""
    return _SERVICE_LINK.fullmatch(f"{name}={value}") is not None


def tell_what_is_no_setting() -> None:
    """Log which variables look like settings and set nothing: service links in one line, a warning for each other."""
    links = []
    for variable in sorted(name for name in os.environ if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX)
        if is_service_link(variable, os.environ[variable]):
            links.append(variable)
        elif name not in NAMES:
            nearest = get_close_matches(name, NAMES, n=1)
            advice = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "arraylstm-serve --help lists them all"
            logger.warning("%s is no setting; %s", variable, advice)
    if links:
        logger.info("ignored, for they are Kubernetes's links to services: %s", ", ".join(links))
