"""The web console: a page of plain files at /, which uses the public API and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import FileResponse, Response
from starlette.types import Scope

PATH = "/"
ASSETS = "/console"
FOLDER = Path(__file__).with_name("console")
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
"""What the page may do: run, show and ask what comes from this server, and never read text as HTML."""

HEADERS = {
    "Cache-Control": "no-cache",  # asked for again each time, so that an update never mixes old modules with new ones
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Assets(StaticFiles):
    """The page's modules, style and picture, under the page's own headers."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def add_console(app: FastAPI) -> None:
    """Serve the page at /, and what it loads under /console."""

    async def page() -> FileResponse:
        return FileResponse(FOLDER / "index.html", headers=HEADERS)

    app.add_api_route(PATH, page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(ASSETS, Assets(directory=FOLDER / "assets"))
