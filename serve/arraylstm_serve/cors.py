"""Origins whose pages may call the server: how they are written, and what their browsers are told."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from arraylstm_serve.call import ANY_ORIGIN, REQUEST_ID, new_request_id

_ORIGIN = re.compile(
    r"(?!http://[^/]*:80$|https://[^/]*:443$)"  # a browser leaves these ports out
    r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)


def validate_origin(_: object, text: str) -> None:
    """Raise ValueError where no browser would ever name a page's origin so, for then none would be let in."""
    if text != ANY_ORIGIN and _ORIGIN.fullmatch(text) is None:
        raise ValueError(
            "Must be an origin as browsers send it, such as https://shop.example or http://localhost:3000: scheme and "
            "host in lower case, a port unless it is the scheme's own, no path and no slash at the end; or *."
        )


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
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
    """Starlette's, whose answers to preflights have a request id as all others have."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight, in which browsers send no id."""
        response = super().preflight_response(request_headers)
        response.headers[REQUEST_ID.decode()] = new_request_id().decode()
        return response
