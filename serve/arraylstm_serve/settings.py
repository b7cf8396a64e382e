"""Every setting of the server, written once; flags and `ARRAYLSTM_*` variables derive from it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

Device = Literal["auto", "cpu", "cuda"]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
TEN_YEARS = 315_360_000
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=TEN_YEARS))]


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

    threads: Count = 1
    """Threads that one run of the model may use."""

    max_sessions: Count = 20_000
    """Sessions held at once; the least recently used idle one makes room for a new one."""

    max_answer_bytes: Count = 268_435_456
    """Bytes of answers remembered for idempotency keys; the least recently used idle sessions make room."""

    session_ttl: Seconds = 1800.0
    """Seconds without use after which a session expires; at most ten years."""

    max_batch: Count = 64
    """Most sessions stepped by one run of the model."""

    max_pending: Count = 1024
    """Requests waiting or running at once; further ones are answered 503."""

    max_items: Count = 1000
    """Most items one request may carry."""

    max_connections: Count = 1024
    """Connections open at once; while there are more, requests are answered 503 in plain text."""

    max_body: Count = 262_144
    """Most bytes one request body may have."""

    shutdown_timeout: Count = 30
    """Seconds that requests in flight get to finish after SIGTERM."""
