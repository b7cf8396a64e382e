"""API keys: who may ask, and whose sessions are whose."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from hmac import compare_digest
from pathlib import Path
from typing import Self

from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.problems import UNAUTHORIZED, Problem, shown

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<digest>[0-9a-f]{64})")
EVERYBODY = ""
"""The namespace of all sessions where no keys are asked for."""


class Keys:
    """The keys that are let in, known by their SHA-256 alone. A key is 256 random bits, so a plain hash hides it.

    Args:
        digests: the name and the SHA-256 of each key; several keys may have one name.
    """

    def __init__(self, digests: Iterable[tuple[str, bytes]]) -> None:
        self._digests = tuple(digests)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of lines `NAME SHA256`; empty lines and those that begin with # are skipped.

        Raises:
            StartupError: the file cannot be read, has another line, or no key.
        """
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"--api-keys {path} cannot be read: {cause(error)}.") from error
        digests = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise StartupError(
                    f"--api-keys {path} line {number} is {shown(line)}; expected a name of A-Z a-z 0-9 . _ - and the "
                    "64 hexadecimal digits of the key's SHA-256, as `arraylstm-serve make-key NAME` prints them."
                )
            digests.append((match["name"], bytes.fromhex(match["digest"])))
        if not digests:
            raise StartupError(f"--api-keys {path} lists no key; nobody could be let in.")
        return cls(digests)

    def namespace(self, key: str | None) -> str:
        """The name of a key; every listed key is compared, in constant time.

        Raises:
            Problem: `unauthorized`.
        """
        found = None
        if key is not None:
            digest = hashlib.sha256(key.encode()).digest()
            for name, other in self._digests:
                if compare_digest(digest, other):
                    found = name
        if found is None:
            missing = "carries no API key" if key is None else "carries an API key that is not known"
            detail = f"The request {missing}; send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            raise Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
        return found


def make_key(name: str) -> tuple[str, str]:
    """A new key, and the line of an --api-keys file that lets it in.

    Raises:
        ValueError: the name has other characters than A-Z a-z 0-9 . _ - or more than 64.
    """
    key = secrets.token_urlsafe(32)
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
    if _LINE.fullmatch(line) is None:
        raise ValueError(f"the name {shown(name)} is not 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return key, line
