"""Log lines on standard error: for people, or JSON for machines."""

from __future__ import annotations

import logging.config
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from starlette.types import Scope

from arraylstm_serve.call import Call
from arraylstm_serve.settings import Settings

_access = logging.getLogger("arraylstm_serve.access")

_FORMATTERS: dict[str, dict[str, Any]] = {
    "text": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"},
    "json": {
        "()": JsonFormatter,
        "fmt": "{levelname}{name}{message}",
        "style": "{",
        "timestamp": True,
        "rename_fields": {"levelname": "level", "name": "logger"},
    },
}


def configure(settings: Settings) -> None:
    """Send every logger's lines, uvicorn's among them, to standard error in the format asked for."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": _FORMATTERS[settings.log_format]},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            "loggers": {"uvicorn": {"level": "WARNING"}},
        }
    )


def access(scope: Scope, call: Call, status: int, seconds: float) -> None:
    """Write the line of an answered request."""
    facts = {
        "method": scope.get("method", "GET"),  # of a WebSocket's handshake it is not told
        "path": scope["raw_path"].decode("latin-1"),  # as it was sent: decoded, it could begin a line of its own
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": call.request_id.decode("latin-1"),
        "key": call.namespace or None,
        "client": (scope.get("client") or [None])[0],
    }
    line = "%(method)s %(path)s %(status)d in %(seconds)s s, request %(request_id)s"
    _access.info(line, facts, extra=facts)
