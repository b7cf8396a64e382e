"""A session as one immutable value."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Literal, Self

import msgspec
from msgspec import Struct

from arraylstm_serve.api.schemas import KEYS_REMEMBERED, Item
from arraylstm_serve.bundle.vocabulary import UNLISTED_BYTES, Vocabulary
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.stores.record import Kept, Stamp

RECENT = 64
"""How many of a session's last items are kept."""

SESSION_BYTES = 1536
"""The most bytes that a session takes, without its row in the engine, its remembered answers and its items' labels.

Most of them are the tuple of its last items, its name, and its entries in the table's dicts.
"""

ID_BYTES = 32
"""Bytes of an item's id as a number of Python."""

ANSWER_OVERHEAD = 512
"""Bytes counted for a remembered answer on top of its key and content; Python's objects and tables take 200 to 750."""

State = Literal["new", "continued", "restored"]


class Answers(Struct, frozen=True, gc=False):
    """A session's answers under its last 16 idempotency keys, oldest first.

    Attributes:
        by_key: the answers; this dict is never changed.
        nbytes: how many bytes are counted for them.
    """

    by_key: dict[str, Kept] = {}
    nbytes: int = 0

    def remember(self, key: str, digest: bytes, answer: bytes) -> Answers:
        """Return these answers and one more, without those beyond the last 16 keys."""
        return Answers.of(dict([*self.by_key.items(), (key, Kept(digest, answer))][-KEYS_REMEMBERED:]))

    @classmethod
    def of(cls, by_key: dict[str, Kept]) -> Self:
        """Return these answers, with their bytes counted."""
        return cls(by_key, sum(len(name) + len(one.answer) + ANSWER_OVERHEAD for name, one in by_key.items()))


NO_ANSWERS = Answers()


class Session(Struct, frozen=True, gc=False):
    """Everything that the server knows of a session, except its tensors, which lie in its slot of the engine.

    A session that has not consumed an item yet, or has ended, stands at step 0 in the initial slot. One that has ended
    may still remember answers, so that a retry gets them again. Every change of a session makes a new value.

    Attributes:
        key: its name in the server; `NAMESPACE/ID` if API keys divide sessions into namespaces.
        incarnation: 63 random bits, drawn when the session begins; 0 if it has not begun.
        version: how often the session has changed since it began, its end included. No two values of a session have the
            same incarnation and version, unless a store has lost some.
        model: the fingerprint of the model that made its state.
        step: how many items it has consumed.
        slot: the engine's row that holds its state.
        recent: the labels of its last items, 64 at most, oldest first. An item that the model took as its unknown item
            has the label that the client sent, as far as `Vocabulary.bounded` keeps it.
        answers: the answers under its last idempotency keys.
        created: when it began, in seconds since the epoch.
        last_used: when it was last used, in seconds since the epoch.
        restored: whether a client gave it its state and it has consumed no item since.
        ended: when it ended, in seconds since the epoch; 0 if it has not.
        owner: the client that began it, and whose share of the bounds it counts towards.
        writes: the ids of its last writes to the store, newest first; none if there is no store.
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
    ended: float = 0.0
    owner: str = ""
    writes: tuple[int, ...] = ()

    @property
    def begun(self) -> bool:
        """Whether the session has a state of its own."""
        return self.step > 0

    @property
    def stamp(self) -> Stamp | None:
        """What names this value of the session; None before it has begun for the first time."""
        if not self.version:
            return None
        return Stamp(self.incarnation, self.version, self.writes[0] if self.writes else 0)

    @property
    def state(self) -> State:
        """What the next answer calls the session."""
        return "restored" if self.restored else "continued" if self.step else "new"

    def advanced(self, slot: int, model: str, labels: Sequence[Item], now: float, client: str) -> Session:
        """Return the session after it has consumed items that a client has sent."""
        begun = self.step > 0
        return Session(
            self.key,
            self.incarnation if begun else _new_incarnation(),
            self.version + 1 if begun else 1,
            model,
            self.step + len(labels),
            slot,
            (*self.recent, *labels)[-RECENT:],
            self.answers,
            self.created if begun else now,
            now,
            owner=self.owner if begun else client,
        )

    def unmoved(self, now: float, client: str) -> Session:
        """Return the session after a client has sent it nothing that it consumed; one at step 0 counts as ended."""
        if not self.step:
            return self.advanced(self.slot, self.model, (), now, client).at_end(now)
        after = self.advanced(self.slot, self.model, (), now, client)
        return msgspec.structs.replace(after, restored=self.restored)

    def given(self, slot: int, model: str, step: int, recent: Sequence[Item], now: float, client: str) -> Session:
        """Return the session with a state that a client gave it."""
        return Session(
            self.key,
            self.incarnation if self.step else _new_incarnation(),
            self.version + 1 if self.step else 1,
            model,
            step,
            slot,
            tuple(recent)[-RECENT:],
            self.answers,
            self.created if self.step else now,
            now,
            restored=True,
            owner=self.owner if self.step else client,
        )

    def at_end(self, now: float) -> Session:
        """Return the session after its end: it remembers its answers, and its next item begins it again."""
        return self._ended(self.answers, now)

    def forgotten(self, now: float) -> Session:
        """Return the session after its removal: it remembers no answers."""
        return self._ended(NO_ANSWERS, now)

    def _ended(self, answers: Answers, now: float) -> Session:
        return Session(
            self.key,
            self.incarnation,
            self.version + 1,
            answers=answers,
            created=self.created,
            last_used=now,
            ended=now,
            owner=self.owner,
        )

    def with_recent(self, recent: tuple[Item, ...]) -> Session:
        """Return the session with these labels of its last items."""
        return msgspec.structs.replace(self, recent=recent)

    def used(self, now: float) -> Session:
        """Return the session, last used at the given time."""
        return msgspec.structs.replace(self, last_used=now)

    def remembering(self, key: str, digest: bytes, answer: bytes) -> Self:
        """Return the session with one more remembered answer."""
        return msgspec.structs.replace(self, answers=self.answers.remember(key, digest, answer))


def _new_incarnation() -> int:
    return secrets.randbits(63)


def session_bytes(vocabulary: Vocabulary) -> int:
    """Return the bytes that a session takes at most beside its row and its remembered answers.

    The labels of its last items are the vocabulary's; where ids are the labels, every session has numbers of its own.
    So it has the labels of items that are not listed.
    """
    numbers = RECENT * ID_BYTES if vocabulary.unlabelled else 0
    return SESSION_BYTES + numbers + (0 if vocabulary.stand_in is None else UNLISTED_BYTES)
