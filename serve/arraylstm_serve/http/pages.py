"""Pages for browsers: the console at / and Swagger UI at /docs. Nothing comes from other servers."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

PATH = "/"
ASSETS = "/console"
FOLDER = Path(__file__).parents[1] / "console"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""What the console may do: load and call only this server, and never treat text as HTML."""


def headers(policy: str) -> dict[str, str]:
    """Return the headers of a page, or of a file that it loads."""
    return {
        "Cache-Control": "no-cache",  # asked for each time: after an update old and new modules must not mix
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


HEADERS = headers(POLICY)
LINK_TO_DOCS = '<a href="docs">API</a>'


class Assets(StaticFiles):
    """The console's modules, style and picture, with the console's headers."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, or 304 if it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def add_console(app: FastAPI, prefix: str) -> None:
    """Serve the console at /, and the files it loads under /console. It links to /docs if that is served.

    Its links are relative. So the bare prefix, under which a proxy may show the server, leads to the path with a slash.
    """
    text = (FOLDER / "index.html").read_text("utf-8")
    if app.openapi_url is None:
        text = text.replace(LINK_TO_DOCS, "")

    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers=HEADERS)

    app.add_api_route(PATH, page, methods=["GET", "HEAD"], include_in_schema=False)
    if prefix:

        async def redirection() -> RedirectResponse:
            return RedirectResponse(f"{prefix}/")

        app.add_api_route(prefix, redirection, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(ASSETS, Assets(directory=FOLDER / "assets"))


DOCS = "/docs"
DOCS_ASSETS = "/docs/assets"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_docs(app: FastAPI) -> None:
    """Serve Swagger UI under /docs; its scripts and styles come with the package fastapi-offline.

    The links are relative, so that they also work behind a proxy that serves this under a prefix.
    """
    page = get_swagger_ui_html(
        openapi_url=str(app.openapi_url).removeprefix("/"),
        title=app.title,
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon.png",
    )
    page.headers.update(headers(docs_policy(bytes(page.body).decode())))

    async def docs() -> HTMLResponse:
        return page

    app.add_api_route(DOCS, docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(DOCS_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))


def docs_policy(page: str) -> str:
    """Return what Swagger UI may do: call only this server, and run its own files and the page's scripts as they stand.

    It styles elements in place and draws icons from `data:`, which cannot send anything anywhere.
    """
    digests = (b64encode(sha256(script.encode()).digest()).decode() for script in _INLINE_SCRIPT.findall(page))
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *(f"'sha256-{digest}'" for digest in digests))),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
