"""A session as one value."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Literal, Self

import msgspec
from msgspec import Struct

from arraylstm_serve.api.schemas import KEYS_REMEMBERED, Item
from arraylstm_serve.engine.slots import INITIAL

RECENT = 64
"""How many of a session's last items are kept."""

SESSION_BYTES = 1536
"""Bytes that a session takes at most beside its row in the engine and its remembered answers, its items' labels apart.

Most of them are its last items, its name, and its places in the table's dicts.
"""

ANSWER_OVERHEAD = 512
"""Bytes that a remembered answer counts for beside its key and content; Python's objects and tables take 200 to 750."""

State = Literal["new", "continued", "restored"]


class Remembered(Struct, frozen=True, gc=False):
    """The answer to a request with an idempotency key.

    Attributes:
        digest: of what was requested.
        answer: the encoded answer.
    """

    digest: bytes
    answer: bytes


class Answers(Struct, frozen=True, gc=False):
    """The answers that a session gave under its last 16 idempotency keys, oldest first.

    Attributes:
        by_key: the answers; never changed, but replaced.
        nbytes: how many bytes they count for.
    """

    by_key: dict[str, Remembered] = {}
    nbytes: int = 0

    def remember(self, key: str, digest: bytes, answer: bytes) -> Answers:
        """These answers and one more; the oldest beyond the last 16 keys are forgotten."""
        kept = [*self.by_key.items(), (key, Remembered(digest, answer))][-KEYS_REMEMBERED:]
        return Answers(dict(kept), sum(len(name) + len(one.answer) + ANSWER_OVERHEAD for name, one in kept))


NO_ANSWERS = Answers()


class Session(Struct, frozen=True, gc=False):
    """All that the server knows of a session, but for the tensors, which the engine has in its slot.

    A session that nobody has told an item, or that has ended, stands at step 0 in the initial slot; one that has ended
    may still remember answers, so that a retry gets them again. Whatever happens to a session makes a new value.

    Attributes:
        key: its name within the server, `NAMESPACE/ID` where API keys divide sessions into namespaces.
        incarnation: 63 random bits, drawn when the session begins; 0 where it has not begun.
        version: how often the session has changed since it began.
        model: the fingerprint of the model that made its state.
        step: how many items it has consumed.
        slot: the engine's row that has its state.
        recent: the labels of its last items, 64 at most, oldest first.
        answers: what was answered under its last idempotency keys.
        created: when it began, in seconds since the epoch.
        last_used: when it was last used, likewise.
        restored: whether a client gave it its state, and it has consumed no item since.
    """

    key: str
    incarnation: int = 0
    version: int = 0
    model: str = ""
    step: int = 0
    slot: int = INITIAL
    recent: tuple[Item, ...] = ()
    answers: Answers = NO_ANSWERS
    created: float = 0.0
    last_used: float = 0.0
    restored: bool = False

    @property
    def begun(self) -> bool:
        """Whether the session has a state of its own."""
        return self.step > 0

    @property
    def state(self) -> State:
        """What an answer calls a session that goes on from here."""
        return "restored" if self.restored else "continued" if self.step else "new"

    def advanced(self, slot: int, model: str, labels: Sequence[Item], now: float) -> Session:
        """The session after it has consumed items."""
        begun = self.step > 0
        return Session(
            self.key,
            self.incarnation if begun else _new_incarnation(),
            self.version + 1,
            model,
            self.step + len(labels),
            slot,
            (*self.recent, *labels)[-RECENT:],
            self.answers,
            self.created if begun else now,
            now,
        )

    def given(self, slot: int, model: str, step: int, recent: Sequence[Item], now: float) -> Session:
        """The session with a state that a client gave it."""
        return Session(
            self.key,
            self.incarnation if self.step else _new_incarnation(),
            self.version + 1,
            model,
            step,
            slot,
            tuple(recent)[-RECENT:],
            self.answers,
            self.created if self.step else now,
            now,
            restored=True,
        )

    def ended(self, now: float) -> Session:
        """The session at its end: it begins anew with its next item, and remembers its answers."""
        return Session(self.key, answers=self.answers, last_used=now)

    def forgotten(self, now: float) -> Session:
        """The session at its end, its answers forgotten too."""
        return Session(self.key, last_used=now)

    def used(self, now: float) -> Session:
        """The session, used at some time."""
        return msgspec.structs.replace(self, last_used=now)

    def remembering(self, key: str, digest: bytes, answer: bytes) -> Self:
        """The session, which remembers an answer besides."""
        return msgspec.structs.replace(self, answers=self.answers.remember(key, digest, answer))


def _new_incarnation() -> int:
    return secrets.randbits(63)
