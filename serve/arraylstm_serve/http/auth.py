"""API keys: who may call the server, and which sessions are theirs."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path
from stat import S_IWGRP, S_IWOTH
from typing import Self

from arraylstm_serve.api.problems import UNAUTHORIZED, Problem
from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.text import shown

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<digest>[0-9A-Fa-f]{64})")
EVERYBODY = ""
"""The namespace of all sessions if the server asks for no keys."""

logger = logging.getLogger(__name__)


class Keys:
    """The accepted keys, stored as SHA-256 only. A key is 256 random bits, so a plain hash hides it.

    Args:
        digests: the name and the SHA-256 of each key; several keys may have one name.
    """

    def __init__(self, digests: Iterable[tuple[str, bytes]]) -> None:
        self._digests = tuple(digests)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of lines `NAME SHA256`; skip empty lines and those that begin with #.

        Messages never show a line of another form: it may be a key.

        Raises:
            StartupError: the file cannot be read, has a line of another form, gives a key two names, or has no key.
        """
        _warn_of_writers(path)
        owners: dict[bytes, tuple[str, int]] = {}
        for number, line in enumerate(_read(path).splitlines(), 1):
            words = line.strip()
            if not words or words.startswith("#"):
                continue
            match = _LINE.fullmatch(words)
            if match is None:
                raise StartupError(
                    f"--api-keys {path} line {number} is not a name of A-Z a-z 0-9 . _ - and the 64 hexadecimal digits "
                    "of the key's SHA-256, as `arraylstm-serve make-key NAME` prints them."
                )
            name = match["name"]
            owner, first = owners.setdefault(bytes.fromhex(match["digest"]), (name, number))
            if owner != name:
                raise StartupError(
                    f"--api-keys {path} gives one key to two names, "
                    f"{owner} in line {first} and {name} in line {number}."
                )
        if not owners:
            raise StartupError(f"--api-keys {path} has no key, so nobody could be let in.")
        return cls((owner, digest) for digest, (owner, _) in owners.items())

    def namespace(self, key: str | None) -> str:
        """Return the name of a key. Every accepted key is compared, in constant time.

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
            missing = "has no API key" if key is None else "has an unknown API key"
            detail = f"The request {missing}; send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            raise Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
        return found


def _warn_of_writers(path: Path) -> None:
    """Log a warning if others than the file's owner can write to it, and so let themselves in."""
    with suppress(OSError):  # the reading tells
        mode = path.stat().st_mode
        if mode & (S_IWGRP | S_IWOTH):
            writers = "everybody" if mode & S_IWOTH else "its group"
            logger.warning("--api-keys %s can be written by %s, who can add keys; `chmod go-w` it", path, writers)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise StartupError(f"--api-keys {path} cannot be read: it is not UTF-8 text.") from error
    except OSError as error:
        raise StartupError(f"--api-keys {path} cannot be read: {cause(error)}.") from error


def make_key(name: str) -> tuple[str, str]:
    """Make an API key; return it, and its line for the --api-keys file.

    Raises:
        ValueError: the name is not 1 to 64 characters of A-Z a-z 0-9 . _ -
    """
    key = secrets.token_urlsafe(32)
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
    if _LINE.fullmatch(line) is None:
        raise ValueError(f"the name {shown(name)} is not 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return key, line
