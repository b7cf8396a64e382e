"""How origins are written: what may be given as one whose pages may call the server."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

ANY_ORIGIN = "*"
LAST_PORT = 65_535
_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_ORIGIN = re.compile(
    r"(?!http://[^/]*:80$|https://[^/]*:443$)"  # a browser leaves these ports out
    rf"[a-z][a-z0-9+.-]*://(?P<host>{_LABEL}(\.{_LABEL})*|\[(?P<v6>[0-9a-f:.]+)\])(:(?P<port>[1-9][0-9]{{0,4}}))?"
)
_IN_NUMBERS = re.compile(r"[0-9.]+").fullmatch


def validate_origin(_: object, text: str) -> None:
    """Raise ValueError where no browser would ever name a page's origin so, for then none would be let in."""
    if text != ANY_ORIGIN and not _is_origin(text):
        raise ValueError(
            "Must be an origin as browsers send it, such as https://shop.example or http://localhost:3000: scheme and "
            "host in lower case, a port unless it is the scheme's own, no path and no slash at the end; or *."
        )


def _is_origin(text: str) -> bool:
    found = _ORIGIN.fullmatch(text)
    if found is None or int(found["port"] or 1) > LAST_PORT:
        return False
    with suppress(ValueError):
        if found["v6"]:
            IPv6Address(found["v6"])
        elif _IN_NUMBERS(found["host"]):
            IPv4Address(found["host"])
        return True
    return False
