"""What a right server does: where a session stands, and what a call does to it and must be answered.

This is "What a client can rely on" in docs/serving.md as a program that takes one call at a time. The server has
reached none of its bounds, so it never lets a session go by itself.
"""

from __future__ import annotations

from typing import NamedTuple

from .history import Ask, Call
from .replay import Life, Replay, ReplayError

KEYS_REMEMBERED = 16

REWOUND = "session_rewound"
"""The refusal that says that the store has lost steps of a session, and where it stands now."""

DECIDED_BY_THE_SESSION = ("step_conflict", "session_gone", "unknown_session", "idempotency_key_reused", REWOUND)
"""Refusals that say where the session stands. Others (a full queue, an unknown item) can come at any time."""


CONSUMING = ("advance", "infer", "predict")
"""What consumes items, of a session or of none."""


class Refusal(NamedTuple):
    """The refusal that a call must get; `step` is what a step conflict must tell."""

    code: str
    step: int = 0


class Due(NamedTuple):
    """The answer that a call must get.

    Attributes:
        ask: what was asked for.
        before: the session before the call.
        after: the session after it.
        state: what the answer must call the session.
        body: the answer that the call's key got before, byte for byte; None if nobody has seen one.
    """

    ask: Ask
    before: Life
    after: Life
    state: str
    body: str | None = None


class Stand(NamedTuple):
    """Where a session stands.

    Attributes:
        life: its items so far; at step 0 the session does not exist.
        restored: whether a client gave it its state and it has consumed nothing since.
        keys: the last 16 keys with the answers due to them, oldest first.
        ended: the life that the last `delete` or `end` ended.
    """

    life: Life
    restored: bool = False
    keys: tuple[tuple[str, Due], ...] = ()
    ended: Life | None = None

    @property
    def begun(self) -> bool:
        """Whether the session exists."""
        return self.life.step > 0

    @property
    def state(self) -> str:
        """What the next answer must call the session."""
        return "restored" if self.restored else "continued" if self.begun else "new"

    def due(self, key: str | None) -> Due | None:
        """Return the answer due to a key; None if the session does not remember the key."""
        return None if key is None else dict(self.keys).get(key)

    def remembering(self, key: str | None, due: Due) -> Stand:
        """Return the stand with a key's answer, without the keys beyond the last 16."""
        if key is None:
            return self
        others = tuple(entry for entry in self.keys if entry[0] != key)
        return self._replace(keys=(*others, (key, due))[-KEYS_REMEMBERED:])

    def knowing(self, key: str, body: str) -> Stand:
        """Return the stand once the answer of a remembered key has been seen."""
        return self._replace(
            keys=tuple((name, due._replace(body=body) if name == key else due) for name, due in self.keys)
        )


class Served(NamedTuple):
    """What becomes of a call: where the session stands then, and what must be answered."""

    after: Stand
    due: Due | Refusal


def serve(replay: Replay, stand: Stand, call: Call) -> Served:
    """Return what a right server does with a call to a session."""
    ask, key = call.ask, call.sent.key
    if ask.do == "predict":
        return Served(stand, Due(ask, replay.fresh, replay.after(replay.fresh, ask.items), "new"))
    known = stand.due(key)
    if known is not None:
        return Served(stand, known if known.ask == ask else Refusal("idempotency_key_reused"))
    if ask.do == "advance":
        return _advance(replay, stand, ask, key)
    if ask.do == "infer" and ask.start:
        return _advance(replay, stand._replace(life=replay.fresh, restored=False), ask, key)
    if ask.do == "restore":
        life = replay.restored(ask.file)
        due = Due(ask, stand.life, life, "restored")
        return Served(Stand(life, True, stand.keys).remembering(key, due), due)
    if not stand.begun:
        return Served(stand, Refusal("unknown_session"))
    if ask.do == "infer":
        return _advance(replay, stand, ask, key)
    due = Due(ask, stand.life, stand.life, stand.state)
    if ask.do == "delete":
        return Served(Stand(replay.fresh, ended=stand.life).remembering(key, due), due)
    return Served(stand, due)


def _advance(replay: Replay, stand: Stand, ask: Ask, key: str | None) -> Served:
    step = stand.life.step
    if ask.expected_step not in (None, step):
        return Served(stand, Refusal("step_conflict", step) if step else Refusal("session_gone"))
    life = replay.after(stand.life, ask.items)
    due = Due(ask, stand.life, life, stand.state)
    after = Stand(replay.fresh, ended=life) if ask.end else Stand(life)
    return Served(after._replace(keys=stand.keys).remembering(key, due), due)


def can_take(replay: Replay, call: Call) -> bool:
    """Return whether a right server can apply a call at all: it can read what was sent."""
    ask = call.ask
    if ask.do in CONSUMING:
        excludable = all(replay.items.listed(item) is not None for item in ask.exclude)
        return bool(ask.items) and excludable and all(map(replay.knows, ask.items))
    return ask.do != "restore" or _readable(replay, ask.file)


def _readable(replay: Replay, file: str) -> bool:
    try:
        replay.restored(file)
    except ReplayError:
        return False
    return True
