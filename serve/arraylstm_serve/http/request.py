"""What the head of a request says: its id, API key, origin and Idempotency-Key."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import count
from time import perf_counter

from starlette.types import Scope

from arraylstm_serve.api.problems import FOREIGN_ORIGIN, INVALID_REQUEST, Problem
from arraylstm_serve.api.schemas import KEY
from arraylstm_serve.http.auth import EVERYBODY, Keys
from arraylstm_serve.origins import ANY_ORIGIN
from arraylstm_serve.sessions.commands import Caller
from arraylstm_serve.text import shown

REQUEST_ID = b"x-request-id"
BEARER_PROTOCOL = "arraylstm.bearer"
"""The WebSocket subprotocol that comes before an API key. Browsers need it: they cannot set a WebSocket's headers."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

_request_ids = count()
_process = secrets.token_hex(6).encode()
_sane = re.compile(rb"[!-~]{1,128}").fullmatch
_key = re.compile(KEY).fullmatch


def new_request_id() -> bytes:
    """Make an id for a request that has none."""
    return b"%s-%x" % (_process, next(_request_ids))


class Call:
    """What the head of a request says.

    Attributes:
        arrived: time of its arrival, by perf_counter.
        request_id: the client's X-Request-ID if it is printable, else one that the server made.
        namespace: whose sessions it can see.
    """

    __slots__ = ("_api_key", "_idempotency", "_origin", "_site", "arrived", "namespace", "request_id")

    def __init__(self, scope: Scope) -> None:
        self.arrived = perf_counter()
        self.namespace = EVERYBODY
        self.request_id = b""
        self._api_key: bytes | None = None
        self._idempotency: list[bytes] | None = None
        self._origin = self._site = b""
        for name, value in scope["headers"]:
            if name == b"idempotency-key":
                self._idempotency = [*(self._idempotency or ()), value]
            elif name == REQUEST_ID and _sane(value):
                self.request_id = value
            elif name == b"x-api-key":
                self._api_key = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                self._api_key = value[7:].strip()
            elif name == b"origin":
                self._origin = value
            elif name == b"sec-fetch-site":
                self._site = value
        if not self.request_id:
            self.request_id = new_request_id()
        if BEARER_PROTOCOL in scope.get("subprotocols", ()):
            self._api_key = scope["subprotocols"][-1].encode()

    def check_origin(self, scope: Scope, allowed: Sequence[str]) -> None:
        """Refuse a page of another origin unless it only reads, as Go's http.CrossOriginProtection does.

        Args:
            scope: the request's; a WebSocket's has no method.
            allowed: origins whose pages may call the server.

        Raises:
            Problem: `foreign_origin`.
        """
        if not (self._site or self._origin) or scope.get("method") in SAFE_METHODS:
            return
        if self._site:
            foreign = self._site not in (b"same-origin", b"none")
        else:
            foreign = self._origin.partition(b"://")[2] != dict(scope["headers"]).get(b"host")
        origin = self._origin.decode("latin-1")
        if foreign and origin not in allowed and ANY_ORIGIN not in allowed:
            detail = (
                f"Pages of the origin {shown(origin)} may only read; --cors-origin lets pages of an origin do more."
            )
            raise Problem(FOREIGN_ORIGIN, detail)

    def authorise(self, keys: Keys | None) -> None:
        """Find out whose sessions the request can see.

        Raises:
            Problem: `unauthorized`: keys are asked for, and the request has none or an unknown one.
        """
        if keys is not None:
            self.namespace = keys.namespace(None if self._api_key is None else self._api_key.decode("latin-1"))

    def caller(self, patience: float) -> Caller:
        """The caller as commands know it, who waits so many seconds for a request to begin."""
        return Caller(self.namespace, self.arrived, self.arrived + patience)

    def idempotency_key(self) -> str | None:
        """Return the Idempotency-Key; None if there is none.

        Raises:
            Problem: `invalid_request`: the key is empty, too long, not printable ASCII, or given twice.
        """
        if self._idempotency is None:
            return None
        if len(self._idempotency) > 1:
            detail = f"Idempotency-Key is given {len(self._idempotency)} times; once is allowed."
            raise Problem(INVALID_REQUEST, detail)
        text = self._idempotency[0].decode("latin-1")
        if _key(text) is None:
            detail = f"Idempotency-Key must be 1 to 255 printable ASCII characters, not {shown(text)}."
            raise Problem(INVALID_REQUEST, detail)
        return text
