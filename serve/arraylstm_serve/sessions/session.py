"""A session as one value, which an arena saves and another one can load."""

from __future__ import annotations

from dataclasses import dataclass, field

from arraylstm_serve.api.problems import IDEMPOTENCY_KEY_REUSED, Problem
from arraylstm_serve.api.schemas import KEYS_REMEMBERED
from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.text import shown

RECENT = 32
"""How many of a session's last items are kept."""

OVERHEAD = 512
"""Bytes that a remembered answer counts for beside its key and content; Python's objects and tables take 200 to 750."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer that a request under an idempotency key got.

    Attributes:
        digest: of what was requested.
        answer: the encoded answer.
    """

    digest: bytes
    answer: bytes


@dataclass(slots=True)
class Answers:
    """The answers that a session gave under its last 16 idempotency keys."""

    by_key: dict[str, Remembered] = field(default_factory=dict)
    nbytes: int = 0

    def recall(self, key: str, digest: bytes) -> bytes | None:
        """The answer given under a key, if one was.

        Raises:
            Problem: `idempotency_key_reused`, where the key was sent with another request.
        """
        known = self.by_key.get(key)
        if known is None:
            return None
        if known.digest != digest:
            raise Problem(IDEMPOTENCY_KEY_REUSED, f"Idempotency-Key {shown(key)} was sent before with another request.")
        return known.answer

    def remember(self, key: str, digest: bytes, answer: bytes) -> int:
        """Keep an answer, and forget the oldest beyond the last 16 keys; by how many bytes it is more now."""
        self.by_key[key] = Remembered(digest, answer)
        more = _size(key, answer)
        if len(self.by_key) > KEYS_REMEMBERED:
            oldest = next(iter(self.by_key))
            more -= _size(oldest, self.by_key.pop(oldest).answer)
        self.nbytes += more
        return more


def _size(key: str, answer: bytes) -> int:
    """Bytes that an answer under a key counts for."""
    return len(key) + len(answer) + OVERHEAD


@dataclass(frozen=True, slots=True)
class Record:
    """All that goes on with a session.

    Attributes:
        version: how often the session has changed.
        step: how many items it has consumed, at least one.
        tensors: `state_<name>` and `logits` of the last step, float32, without a batch axis.
        recent: (n,) int64, its last item ids, oldest first; n is 32, or step where that is less.
        answers: what it answered under its last idempotency keys.
    """

    version: int
    step: int
    tensors: dict[str, Floats]
    recent: Integers
    answers: Answers = field(default_factory=Answers)
