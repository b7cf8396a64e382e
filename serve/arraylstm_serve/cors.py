"""What browsers are told of a server that pages of other origins may call."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from arraylstm_serve.application import Application
from arraylstm_serve.http.request import Call
from arraylstm_serve.http.response import Exchange


def allow_origins(app: Application, origins: Sequence[str]) -> ASGIApp:
    """The application, which pages of these origins may call from a browser."""
    if not origins:
        return app
    return _Origins(
        app,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["X-Request-ID", "Retry-After"],
    )


class _Origins(CORSMiddleware):
    """Starlette's; the preflights that it answers itself are counted and have request ids as all other requests."""

    app: Application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or let the application answer."""
        if not _is_preflight(scope):
            await super().__call__(scope, receive, send)
            return
        exchange = Exchange(self.app.service, Call(scope), scope, receive, send)
        await super().__call__(scope, receive, exchange.send)
        exchange.close()


def _is_preflight(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return {b"origin", b"access-control-request-method"} <= names
