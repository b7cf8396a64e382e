"""Where a Redis or Valkey is: the text after `--sessions`, taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from arraylstm_serve.errors import StartupError
from arraylstm_serve.text import shown

Kind = Literal["single", "cluster", "sentinel"]

PARAMETERS = ("prefix", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "sentinel_username", "sentinel_password")
"""What may stand after the question mark."""

SCHEMES = "redis and valkey, each alone or with +cluster or +sentinel, with TLS rediss and valkeys"

_ESCAPE = 'write "@", "/", "?" and ":" in a password as %40, %2F, %3F and %3A'

_scheme = re.compile(r"(redis|valkey)(s?)(?:\+(cluster|sentinel))?").fullmatch
_is_prefix = re.compile(r"[A-Za-z0-9._-]{1,32}").fullmatch
_host = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:@/]+))(?::([0-9]{1,5}))?").fullmatch


@dataclass(frozen=True)
class Address:
    """Where a server is, and who we are there. `shown` and `repr` hold no passwords.

    Attributes:
        shown: the address for people.
        kind: one server, a cluster, or one that Sentinel names.
        tls: whether connections are encrypted.
        nodes: hosts and ports; of a cluster or of Sentinels any number, else one.
        username: an ACL user, None for the default one.
        db: the number of the database; 0 in a cluster.
        service: the name under which Sentinel knows the server.
        parameters: what stands after the question mark.
        secrets: the passwords, for the client alone.
    """

    shown: str
    kind: Kind
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    username: str | None
    db: int
    service: str
    parameters: dict[str, str]
    secrets: Callable[[], tuple[str | None, str | None]]

    @property
    def prefix(self) -> str:
        """What the names of all keys begin with."""
        return self.parameters.get("prefix", "als")

    def without_secrets(self, text: str) -> str:
        """Return a text with stars in the place of passwords."""
        for secret in filter(None, self.secrets()):
            text = text.replace(secret, "***")
        return text


def parse(text: str) -> Address:
    """Take an address apart.

    Raises:
        StartupError: it has a part that is not allowed there; the message holds nothing that may be a password.
    """
    scheme = text.partition("://")[0]
    matched = _scheme(scheme)
    if matched is None:
        raise StartupError(f"The session store's kind is {shown(scheme)}; allowed are {SCHEMES}.")
    kind: Kind = matched[3] or "single"  # type: ignore[assignment]  # the pattern allows no others
    tls = bool(matched[2])
    parts = _split(scheme, text)
    user, _, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    nodes = _nodes(scheme, hosts, kind)
    service, db = _place(scheme, parts, kind)
    parameters = _parameters(scheme, parts.query, kind, tls=tls)
    secrets = unquote(password) or None, parameters.pop("sentinel_password", None)
    name = f"{scheme}://{hosts}{parts.path}"
    return Address(name, kind, tls, nodes, unquote(username) or None, db, service, parameters, lambda: secrets)


def _split(scheme: str, text: str) -> SplitResult:
    """Split an address, and refuse what a password with unescaped characters may have torn apart."""
    try:
        parts = urlsplit(text)
    except ValueError:  # its words may hold the password
        raise _refusal(scheme, f"is not a URL; {_ESCAPE}") from None
    if "#" in text:
        raise _refusal(scheme, 'has a "#"; write it as %23')
    if "@" in parts.path + parts.query:
        raise _refusal(scheme, f'has an "@" after its first "/" or "?"; {_ESCAPE}')
    return parts


def _nodes(scheme: str, hosts: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports between the user and the path."""
    nodes = []
    for one in hosts.split(","):
        matched = _host(one)
        port = int((matched and matched[3]) or (26379 if kind == "sentinel" else 6379))
        if matched is None or not 0 < port < 65536:
            raise _refusal(scheme, f"needs HOST or HOST:PORT after USER:PASSWORD@; {_ESCAPE}")
        nodes.append((matched[1] or matched[2], port))
    if kind == "single" and len(nodes) > 1:
        raise _refusal(scheme, f"has {len(nodes)} hosts; only {scheme}+cluster and {scheme}+sentinel take several")
    return tuple(nodes)


def _place(scheme: str, parts: SplitResult, kind: Kind) -> tuple[str, int]:
    """Return the service that Sentinel knows, and the database's number."""
    path = parts.path.strip("/")
    if kind == "sentinel":
        service, _, db = path.partition("/")
        if not service:
            raise _refusal(scheme, "needs the name of Sentinel's service after the hosts: /SERVICE")
    else:
        service, db = "", path
    if db and not (db.isascii() and db.isdigit()):
        raise _refusal(scheme, f"has the database {shown(db)}; allowed is a number")
    if kind == "cluster" and db not in ("", "0"):
        raise _refusal(scheme, f"has the database {db}; a cluster has only 0")
    return service, int(db or 0)


def _parameters(scheme: str, query: str, kind: Kind, *, tls: bool) -> dict[str, str]:
    """Return what stands after the question mark."""
    parameters: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise _refusal(scheme, "needs NAME=VALUE pairs after the question mark") from None
    for name, value in pairs:
        if name not in PARAMETERS or name in parameters:
            twice = " twice" if name in parameters else ""
            raise _refusal(scheme, f"has the parameter {shown(name)}{twice}; allowed are {', '.join(PARAMETERS)}")
        if name.startswith("ssl_") and not tls:
            raise _refusal(scheme, f"encrypts nothing, so {name} has no meaning; write rediss or valkeys")
        if name.startswith("sentinel_") and kind != "sentinel":
            raise _refusal(scheme, f"has no Sentinel, so {name} has no meaning")
        parameters[name] = value
    if not _is_prefix(parameters.get("prefix", "als")):
        allowed = "allowed are 1 to 32 letters, digits, points, dashes and underscores"
        raise _refusal(scheme, f"has the prefix {shown(parameters['prefix'])}; {allowed}")
    return parameters


def _refusal(scheme: str, fault: str) -> StartupError:
    return StartupError(f"The session store {scheme}://... {fault}.")
