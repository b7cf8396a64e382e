"""The log line of an answered request."""

from __future__ import annotations

import logging

from starlette.types import Scope

from arraylstm_serve.http.request import RequestHead

_access = logging.getLogger("arraylstm_serve.access")


def log_access(scope: Scope, call: RequestHead, status: int, seconds: float) -> None:
    """Write the line of an answered request."""
    facts = {
        "method": scope.get("method", "GET"),  # a WebSocket's scope has none
        "path": scope["raw_path"].decode("latin-1"),  # as sent: decoded, it could start a new line in the log
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": call.request_id.decode("latin-1"),
        "key": call.namespace or None,
        "client": (scope.get("client") or [None])[0],
    }
    line = "%(method)s %(path)s %(status)d in %(seconds)s s, request %(request_id)s"
    _access.info(line, facts, extra=facts)
