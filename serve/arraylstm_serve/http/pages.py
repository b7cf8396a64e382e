"""Pages for browsers: the console at / and Swagger UI at /docs. Nothing comes from other servers."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.responses import FileResponse, HTMLResponse, Response
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

HEADERS = {
    "Cache-Control": "no-cache",  # asked for each time: after an update old and new modules must not mix
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Assets(StaticFiles):
    """The console's modules, style and picture, with the console's headers."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, or 304 if it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def add_console(app: FastAPI) -> None:
    """Serve the console at /, and the files it loads under /console."""

    async def page() -> FileResponse:
        return FileResponse(FOLDER / "index.html", headers=HEADERS)

    app.add_api_route(PATH, page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(ASSETS, Assets(directory=FOLDER / "assets"))


DOCS = "/docs"
DOCS_ASSETS = "/docs/assets"


def add_docs(app: FastAPI) -> None:
    """Serve Swagger UI under /docs; its scripts and styles come with the package fastapi-offline."""
    page = get_swagger_ui_html(
        openapi_url=str(app.openapi_url),
        title=app.title,
        swagger_js_url=f"{DOCS_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{DOCS_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{DOCS_ASSETS}/favicon.png",
    )

    async def docs() -> HTMLResponse:
        return page

    app.add_api_route(DOCS, docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(DOCS_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))
