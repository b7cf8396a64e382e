"""uvicorn's settings, and what our protocols need beyond them."""

from __future__ import annotations

from typing import Any

import uvicorn
from starlette.types import ASGIApp

from arraylstm_serve.counters import Counters
from arraylstm_serve.heavy import HeavyWork
from arraylstm_serve.server.unread import Waiting
from arraylstm_serve.sessions.limits import Connections
from arraylstm_serve.settings import Settings

MOST_REFUSED = 32
"""Most connections that are being told that there are too many; further ones are cut off without a word.

Each has an open file for a second or two. So many clients could take all files, also those of the admin listener.
"""


class Config(uvicorn.Config):
    """uvicorn's settings, and what our protocols need beyond them.

    Attributes:
        refused: the connections beyond the bound that have not ended yet.

    Args:
        app: the application.
        settings: the bounds on connections, and the files that encrypt them. `ssl` may change while the server runs.
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
        self.refused: set[Any] = set()
        self.tls_files = settings.tls_certificate, settings.tls_key
        self.open_connections = connections
        self.heavy = heavy
        self.unread = Waiting(settings.max_unread_bytes, "--max-unread-bytes")
        self.unfinished = Waiting(settings.max_body_bytes, "--max-body-bytes")
