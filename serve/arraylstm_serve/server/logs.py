"""Log lines on standard error, as text or as JSON."""

from __future__ import annotations

import logging.config
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from arraylstm_serve.settings import Settings

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
    """Send all log lines, uvicorn's too, to standard error in the chosen format."""
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
