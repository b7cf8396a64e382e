"""What the settings say of a proxy in front of the server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

ANY_PROXY = "*"
OWN_PATHS = ("v1", "v2", "docs", "console", "openapi.json", "healthz", "readyz", "metrics")
"""How the paths begin that the server has without a prefix."""

_is_path = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+").fullmatch


def validate_root_path(_: object, text: str) -> None:
    """Raise ValueError if a text is not a path under which the server's own paths can lie."""
    if text and not _is_path(text):
        raise ValueError("Must be a path such as /predict, with a slash at the beginning and none at the end.")
    if text.split("/")[1:2] and text.split("/")[1] in OWN_PATHS:
        raise ValueError(f"Must not begin like a path of the server's own: {', '.join(OWN_PATHS)}.")


class Proxies:
    """The proxies in front of the server, as --forwarded-allow-ips names them.

    Args:
        named: IP addresses, networks, or *.
    """

    def __init__(self, named: Sequence[str]) -> None:
        self._any = ANY_PROXY in named
        self._networks = [ip_network(text) for text in named if text != ANY_PROXY]

    def include(self, address: str) -> bool:
        """Whether an address is that of a proxy."""
        if self._any or not self._networks:
            return self._any
        try:
            known = ip_address(address)
        except ValueError:
            return False
        return any(known in network for network in self._networks)


def validate_proxy(_: object, text: str) -> None:
    """Raise ValueError if a text is neither an IP address or network, nor *."""
    try:
        if text != ANY_PROXY:
            ip_network(text)
    except ValueError:
        raise ValueError("Must be an IP address, or a network such as 10.0.0.0/8, or * for any.") from None
