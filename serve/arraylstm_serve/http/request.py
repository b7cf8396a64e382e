"""What the head of a request says: its id, API key, origin and Idempotency-Key."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import count
from time import perf_counter

from starlette.types import Scope

from arraylstm_serve.api.problems import FOREIGN_HOST, FOREIGN_ORIGIN, INVALID_REQUEST, Problem
from arraylstm_serve.api.schemas import KEY
from arraylstm_serve.fairness import client_at
from arraylstm_serve.hosts import Hosts
from arraylstm_serve.http.auth import EVERYBODY, Key, Keys
from arraylstm_serve.origins import ANY_ORIGIN
from arraylstm_serve.sessions.commands import Caller
from arraylstm_serve.sessions.limits import Connection
from arraylstm_serve.text import shown

REQUEST_ID = b"x-request-id"
CONNECTION = "arraylstm.connection"
"""Where a request's scope has its connection, as it is counted."""

BEARER_PROTOCOL = "arraylstm.bearer"
"""The WebSocket subprotocol that comes before an API key. Browsers need it: they cannot set a WebSocket's headers."""

_KEPT = frozenset(
    (
        REQUEST_ID,
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"host",
        b"idempotency-key",
        b"origin",
        b"sec-fetch-site",
        b"x-api-key",
    )
)
"""The headers that are read."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

_request_ids = count()
_process = secrets.token_hex(6).encode()
_sane = re.compile(rb"[!-~]{1,128}").fullmatch
_key = re.compile(KEY).fullmatch


def new_request_id() -> bytes:
    """Make an id for a request that has none."""
    return b"%s-%x" % (_process, next(_request_ids))


class RequestHead:
    """What the head of a request says.

    Attributes:
        arrived: time of its arrival, by perf_counter.
        request_id: the client's X-Request-ID if it is printable, else one that the server made.
        namespace: whose sessions it can see.
        key: the API key that let it in; None if none is asked for.
        client: whom the bounds count it for: the name of its API key, or its address.
        body_bytes: what it holds of the memory for long bodies.
    """

    __slots__ = (
        "_connection",
        "_kept",
        "_protocols",
        "arrived",
        "body_bytes",
        "client",
        "key",
        "namespace",
        "request_id",
    )

    def __init__(self, scope: Scope) -> None:
        self.arrived = perf_counter()
        self.namespace = EVERYBODY
        self.key: Key | None = None
        peer = scope.get("client")
        self.client: str = client_at(peer)
        self.body_bytes = 0
        self._connection: Connection | None = scope.get(CONNECTION)
        kept: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in _KEPT:
                kept.setdefault(name, []).append(value)
        self._kept = kept
        self._protocols: Sequence[str] = scope.get("subprotocols", ())
        given = kept.get(REQUEST_ID)
        self.request_id = given[-1] if given and _sane(given[-1]) else new_request_id()

    @property
    def encodings(self) -> Sequence[bytes]:
        """The values of Content-Encoding, in the order sent."""
        return self._kept.get(b"content-encoding", ())

    def expected_body(self, limit: int) -> int:
        """Return how many bytes the body may have, decompressed, when at most `limit` are allowed."""
        length = self._last(b"content-length")
        return min(limit, int(length)) if length.isdigit() and not self.encodings else limit

    def check_host(self, allowed: Hosts | None) -> None:
        """Refuse a request for a name that is not the server's. One without a Host header comes from no browser.

        Args:
            allowed: the server's names; None for any.

        Raises:
            Problem: `foreign_host`.
        """
        if allowed is None:
            return
        for host in self._kept.get(b"host", ()):
            if not allowed.allows(host):
                name = shown(host.decode("latin-1"))
                detail = f"The server does not go by the name {name}; --allowed-host gives it further names."
                raise Problem(FOREIGN_HOST, detail)

    def check_origin(self, scope: Scope, allowed: Sequence[str]) -> None:
        """Refuse a page of another origin unless it only reads, as Go's http.CrossOriginProtection does.

        Args:
            scope: the request's; a WebSocket's has no method.
            allowed: origins whose pages may call the server.

        Raises:
            Problem: `foreign_origin`.
        """
        site, origin_sent = self._last(b"sec-fetch-site"), self._last(b"origin")
        if not (site or origin_sent) or scope.get("method") in SAFE_METHODS:
            return
        if site:
            foreign = site not in (b"same-origin", b"none")
        else:
            foreign = origin_sent.partition(b"://")[2] != dict(scope["headers"]).get(b"host")
        origin = origin_sent.decode("latin-1")
        if foreign and origin not in allowed and ANY_ORIGIN not in allowed:
            detail = (
                f"Pages of the origin {shown(origin)} may only read; --cors-origin lets pages of an origin do more."
            )
            raise Problem(FOREIGN_ORIGIN, detail)

    def authorise(self, keys: Keys | None) -> None:
        """Find out whose sessions the request can see.

        Raises:
            Problem: `unauthorized`: keys are asked for, and the request has none or an unknown one; `overloaded`: too
                many connections are open for the key's name.
        """
        if keys is not None:
            self.key = keys.find(self._api_key())
            self.namespace = self.client = self.key.name
            if self._connection is not None:
                self._connection.show(self.client)

    def caller(self, patience: float) -> Caller:
        """Return the caller for a command; it waits at most `patience` seconds for the command to begin."""
        return Caller(self.namespace, self.client, self.arrived, self.arrived + patience)

    def idempotency_key(self) -> str | None:
        """Return the Idempotency-Key; None if there is none.

        Raises:
            Problem: `invalid_request`: the key is empty, too long, not printable ASCII, or given twice.
        """
        given = self._kept.get(b"idempotency-key")
        if given is None:
            return None
        if len(given) > 1:
            raise Problem(INVALID_REQUEST, f"Idempotency-Key is given {len(given)} times; once is allowed.")
        text = given[0].decode("latin-1")
        if _key(text) is None:
            detail = f"Idempotency-Key must be 1 to 255 printable ASCII characters, not {shown(text)}."
            raise Problem(INVALID_REQUEST, detail)
        return text

    def _api_key(self) -> str | None:
        """Return the API key; None if there is none."""
        if BEARER_PROTOCOL in self._protocols:
            return self._protocols[-1]
        if b"x-api-key" in self._kept:
            return self._last(b"x-api-key").decode("latin-1")
        scheme, _, key = self._last(b"authorization").partition(b" ")
        return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else None

    def _last(self, name: bytes) -> bytes:
        """Return the last value of a header; empty if it is not there."""
        return self._kept.get(name, (b"",))[-1]
