"""Log lines on standard error, as text or as JSON."""

from __future__ import annotations

import logging.config
from time import monotonic
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

QUIET = 10.0
"""Seconds between two warnings of uvicorn's with the same words: any client can cause one with each request."""


class Seldom(logging.Filter):
    """Passes a warning on unless it came a moment ago already; says how many it has left out."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a line."""
        if record.levelno != logging.WARNING:
            return True
        words, now = str(record.msg), monotonic()
        if now - self._passed.get(words, -QUIET) < QUIET:
            self._left_out[words] = self._left_out.get(words, 0) + 1
            return False
        self._passed[words] = now
        if left_out := self._left_out.pop(words, 0):
            record.msg = f"{words} ({left_out} more since the last such line)"
        return True


def configure(settings: Settings) -> None:
    """Send all log lines, uvicorn's too, to standard error in the chosen format."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"seldom": {"()": Seldom}},
            "formatters": {"lines": _FORMATTERS[settings.log_format]},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            "loggers": {"uvicorn": {"level": "WARNING"}, "uvicorn.error": {"filters": ["seldom"]}},
        }
    )
