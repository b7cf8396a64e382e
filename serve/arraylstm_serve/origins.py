"""Origins as browsers write them: `scheme://host` or `scheme://host:port`."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

ANY_ORIGIN = "*"

_DEFAULT_PORTS = {"http": 80, "https": 443}
"""Browsers leave these ports out."""

_is_label = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?").fullmatch
_is_number = re.compile(r"[0-9.]+").fullmatch


def validate_origin(_: object, text: str) -> None:
    """Raise ValueError if no browser would send this text as a page's origin, so that it could let no page in."""
    if text != ANY_ORIGIN and not _is_origin(text):
        raise ValueError(
            "Must be an origin as browsers send it, such as https://shop.example or http://localhost:3000: scheme and "
            "host in lower case, a port unless it is the scheme's own, no path and no slash at the end; or *."
        )


def _is_origin(text: str) -> bool:
    """Whether the text is exactly its own scheme, host and port, written as browsers write them."""
    try:
        url = urlsplit(text)
        host = written_host(url.hostname or "")
        port = url.port
    except ValueError:
        return False
    written = f"{url.scheme}://{host}:{port}" if port else f"{url.scheme}://{host}"
    return text == written and port != _DEFAULT_PORTS.get(url.scheme, 0)


def written_host(name: str) -> str:
    """Return the host as an origin has it, IPv6 in brackets.

    Raises:
        ValueError: it is neither an address nor a name.
    """
    if ":" in name:
        if IPv6Address(name).scope_id is not None:
            raise ValueError(name)
        return f"[{name}]"
    if _is_number(name):
        IPv4Address(name)
    elif not all(map(_is_label, name.split("."))):
        raise ValueError(name)
    return name
