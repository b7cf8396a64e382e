"""API keys: who may call the server, how much of it, and which sessions are theirs."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path
from stat import S_IWGRP, S_IWOTH
from typing import Self

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import FORBIDDEN, UNAUTHORIZED, Problem
from arraylstm_serve.api.scopes import ALLOWED, Scope
from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.text import shown

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<digest>[0-9A-Fa-f]{64})(?:\s+(?P<scope>" + "|".join(Scope) + "))?"
)
EVERYBODY = ""
"""The namespace of all sessions if the server asks for no keys."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Key:
    """An accepted key.

    Attributes:
        name: its owner, who has sessions of their own; several keys may have one name.
        digest: its SHA-256. A key is 256 random bits, so a plain hash hides it.
        scope: how much it allows.
        revoked: whether it is accepted no longer, because the file was read again.
    """

    name: str
    digest: bytes
    scope: Scope = Scope.EVERYTHING
    revoked: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """Return the key as logs may show it."""
        return f"{self.name} ({self.scope})" if self.limited else self.name

    @property
    def limited(self) -> bool:
        """Whether it does not allow everything."""
        return self.scope is not Scope.EVERYTHING

    def check(self, operation: Operation | None) -> None:
        """Refuse an operation beyond the key's scope. What is no operation needs the widest scope.

        Raises:
            Problem: `forbidden`.
        """
        if not self.scope.covers(operation.scope if operation else Scope.EVERYTHING):
            detail = f"The API key of {self.name} has the scope {self.scope}, which allows {ALLOWED[self.scope]}."
            raise Problem(FORBIDDEN, detail)

    def require_accepted(self) -> None:
        """Refuse a key that is accepted no longer.

        Raises:
            Problem: `unauthorized`.
        """
        if self.revoked:
            raise Problem(UNAUTHORIZED, "The API key is no longer accepted.", headers={"WWW-Authenticate": "Bearer"})


class Keys:
    """The keys that a file accepts.

    Args:
        path: the file, with lines `NAME SHA256 [SCOPE]`; empty lines and those that begin with # are skipped.
        flag: the setting that names the file, for messages.

    Raises:
        StartupError: the file cannot be read, has a line of another form, gives a key two names or scopes, or has no
            key. Messages never show a line: it may be a key.
    """

    def __init__(self, path: Path, flag: str = "--api-keys") -> None:
        self.source = f"{flag} {path}"
        self.path = path
        self._keys = self._read()

    @classmethod
    def load(cls, path: Path | None, flag: str = "--api-keys") -> Self | None:
        """Read a file; without one, no keys are asked for."""
        return None if path is None else cls(path, flag)

    def reload(self) -> str:
        """Read the file again. Return what has changed, in words.

        Raises:
            StartupError: the file cannot be used; the keys stay as they are.
        """
        found = self._read()
        kept = {digest: key for digest, key in self._keys.items() if found.get(digest) == key}
        added = [key for digest, key in found.items() if digest not in kept]
        removed = [key for digest, key in self._keys.items() if digest not in kept]
        for key in removed:
            key.revoked = True
        self._keys = found | kept
        changes = [
            f"{what}: {', '.join(map(str, keys))}" for what, keys in (("added", added), ("removed", removed)) if keys
        ]
        return "; ".join(changes or ["nothing has changed"])

    def find(self, text: str | None) -> Key:
        """Return the accepted key of a text. Every accepted key is compared, in constant time.

        Raises:
            Problem: `unauthorized`.
        """
        found = None
        if text is not None:
            digest = hashlib.sha256(text.encode()).digest()
            for other, key in self._keys.items():
                if compare_digest(digest, other):
                    found = key
        if found is None:
            missing = "has no API key" if text is None else "has an unknown API key"
            detail = f"The request {missing}; send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            raise Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
        return found

    def _read(self) -> dict[bytes, Key]:
        """Return the file's keys by their digests."""
        _warn_of_writers(self.path, self.source)
        lines: dict[bytes, tuple[Key, int]] = {}
        for number, line in enumerate(_text(self.path, self.source).splitlines(), 1):
            words = line.strip()
            if not words or words.startswith("#"):
                continue
            key = self._parse(words, number)
            first, at = lines.setdefault(key.digest, (key, number))
            if first != key:
                named = first.name != key.name
                what, one, other = (
                    ("to two names", first.name, key.name) if named else ("two scopes", first.scope, key.scope)
                )
                raise StartupError(
                    f"{self.source} gives one key {what}, {one} in line {at} and {other} in line {number}."
                )
        if not lines:
            raise StartupError(f"{self.source} has no key, so nobody could be let in.")
        return {digest: key for digest, (key, _) in lines.items()}

    def _parse(self, words: str, number: int) -> Key:
        match = _LINE.fullmatch(words)
        if match is None:
            raise StartupError(
                f"{self.source} line {number} is not a name of A-Z a-z 0-9 . _ -, the 64 hexadecimal digits of the "
                f"key's SHA-256, and perhaps one of the scopes {', '.join(Scope)}, as `arraylstm-serve make-key NAME` "
                "prints them."
            )
        return Key(match["name"], bytes.fromhex(match["digest"]), Scope(match["scope"] or Scope.EVERYTHING))


def _warn_of_writers(path: Path, source: str) -> None:
    """Log a warning if others than the file's owner can write to it, and so let themselves in."""
    if sys.platform == "win32":  # where these bits say nothing of who can write
        return
    with suppress(OSError):  # the reading tells
        mode = path.stat().st_mode
        if mode & (S_IWGRP | S_IWOTH):
            writers = "everybody" if mode & S_IWOTH else "its group"
            logger.warning("%s can be written by %s, who can add keys; `chmod go-w` it", source, writers)


def _text(path: Path, source: str) -> str:
    try:
        return path.read_text("utf-8-sig")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise StartupError(f"{source} cannot be read: it is not UTF-8 text.") from error
    except OSError as error:
        raise StartupError(f"{source} cannot be read: {cause(error)}.") from error


def make_key(name: str, scope: Scope = Scope.EVERYTHING) -> tuple[str, str]:
    """Make an API key; return it, and its line for a file of keys.

    Raises:
        ValueError: the name is not 1 to 64 characters of A-Z a-z 0-9 . _ -
    """
    key = secrets.token_urlsafe(32)
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
    if scope is not Scope.EVERYTHING:
        line += f" {scope}"
    if _LINE.fullmatch(line) is None:
        raise ValueError(f"the name {shown(name)} is not 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return key, line
