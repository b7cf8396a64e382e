"""The names by which clients may call the server: against pages that have their own name point at this machine.

A browser lets a page talk to the host that the page came from. With DNS rebinding, the page's owner answers the
browser's next question for that name with 127.0.0.1, and the page talks to a server on the visitor's own machine. The
Host header still has the page's name, so the server can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from arraylstm_serve.origins import written_host

ANY_HOST = "*"
LOCAL = ("localhost", "*.localhost")
"""The names that mean this machine wherever they are looked up (RFC 6761)."""

MOST_MET = 64
"""How many allowed Host headers are remembered, to be found faster the next time."""


class Hosts:
    """Some names, and every IP address: a page that was opened by an address has no name to point elsewhere.

    Args:
        names: the names in lower case; `*.shop.example` means all names that end with `.shop.example`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(name.encode() for name in names)
        self._endings = tuple(name.encode()[1:] for name in names if name.startswith("*."))
        self._met: set[bytes] = set()

    def allows(self, host: bytes) -> bool:
        """Return whether a request with this Host header is for one of the names. The port does not matter."""
        if host in self._met:
            return True
        allowed = self._matches(host)
        if allowed and len(self._met) < MOST_MET:
            self._met.add(host)
        return allowed

    def _matches(self, host: bytes) -> bool:
        name = host.partition(b"]")[0][1:] if host.startswith(b"[") else host.partition(b":")[0]
        name = name.lower().removesuffix(b".")
        return name in self._names or name.endswith(self._endings) or is_address(name.decode("latin-1"))


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens there."""
    return host == LOCAL[0] or (is_address(host) and ip_address(host).is_loopback)


def validate_host(_: object, text: str) -> None:
    """Raise ValueError if a text is neither a name in lower case, nor `*.` and one, nor `*`."""
    try:
        plain = text == ANY_HOST or written_host(text.removeprefix("*.")) == text.removeprefix("*.")
    except ValueError:
        plain = False
    if not plain:
        raise ValueError(
            "Must be a host's name in lower case, without scheme and port, such as shop.example; or *.shop.example; "
            "or * for any."
        )
