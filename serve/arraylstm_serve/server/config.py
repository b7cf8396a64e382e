"""uvicorn's settings, and what our protocols need beyond them."""

from __future__ import annotations

from typing import Any

import uvicorn
from starlette.types import ASGIApp

from arraylstm_serve.counters import Counters
from arraylstm_serve.heavy import HeavyWork
from arraylstm_serve.server.unread import Unread
from arraylstm_serve.sessions.limits import Connections
from arraylstm_serve.settings import Settings


class Config(uvicorn.Config):
    """uvicorn's settings, and what our protocols need beyond them.

    Args:
        app: the application.
        settings: the bounds on connections.
        counters: counts the refusals that the application does not hear of.
        connections: counts the connections.
        heavy: does laborious work in turns.
        options: uvicorn's own.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        counters: Counters,
        connections: Connections,
        heavy: HeavyWork,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self.request_timeout = settings.request_timeout
        self.counters = counters
        self.open_connections = connections
        self.heavy = heavy
        self.unread = Unread(settings.max_unread_bytes)
