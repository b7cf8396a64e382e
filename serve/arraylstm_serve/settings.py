"""Every setting of the server, written once; flags and `ARRAYLSTM_*` variables derive from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
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
