"""What both clients have in common."""

from __future__ import annotations

from arraylstm_serve.client.pipeline import PATH, Line
from arraylstm_serve.client.retries import Retries


class ClientCore:
    """Where the server is and how to call it; `Client` documents the arguments.

    Raises:
        ValueError: the URL is not one of HTTP.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, retries: Retries) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The URL is {url!r}; it must begin with http:// or https://.")
        self._url = url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._timeout = timeout
        self._retries = retries
        self._line = Line(f"ws{self._url.removeprefix('http')}{PATH}", self._headers, timeout, retries)
