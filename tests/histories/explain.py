"""What a wrong answer looks like: which mistake of a server gives exactly these numbers.

The search has found that an answer is wrong. Here each known mistake is tried in turn on the replay: an event that is
left out, applied twice or in another place, a session begun again, another session's event or answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from .answers import Fault, numbers_fault
from .history import Call, Item
from .order import Stuck
from .replay import Life, Replay
from .rules import can_take

EVENTS = 16
"""How many of a session's last events are left out, repeated or exchanged."""

EXPLAINED = ("wrong numbers", "wrong state", "lost", "doubled", "stale read", "delete ignored")
"""The faults that may have a better explanation."""

NEAR = 400
"""How many lines away another session's event may be."""


class Mistake(NamedTuple):
    """A mistake to try: its kind, what it would mean, and the life that the call would have met."""

    kind: str
    text: str
    before: Life


Events = list[tuple[Item, ...]]


def explain(replay: Replay, stuck: Stuck, sessions: Mapping[str, Sequence[Call]]) -> Fault:
    """Return the fault of a wrong answer, by the mistake that explains its numbers if one does."""
    call = stuck.call
    found = call.content
    if not (call.ok and isinstance(found, dict) and call.ask.do in ("advance", "predictions")):
        return stuck.fault
    if stuck.fault.kind not in ("undecided", "untold") and found.get("state") == "new" and stuck.stand.begun:
        return Fault("lost session", f"The answer begins the session anew; it stood at step {stuck.stand.life.step}.")
    if stuck.fault.kind not in EXPLAINED or not found.get("predictions"):
        return stuck.fault
    for kind, text, before in _mistakes(replay, stuck, sessions):
        after = replay.after(before, call.ask.items) if call.ask.do == "advance" else before
        if after.logits is not None and numbers_fault(replay, call.ask, after, found) is None:
            return Fault(kind, f"{text} {stuck.fault.text}")
    due = replay.after(stuck.stand.life, call.ask.items) if call.ask.do == "advance" else stuck.stand.life
    reading = msgspec.structs.replace(call.ask, do="predictions")  # the same predictions, and nothing observed
    if due.logits is not None and numbers_fault(replay, reading, due, found | {"observed": []}) is None:
        return stuck.fault
    return _borrowed(call, sessions) or stuck.fault


def _mistakes(replay: Replay, stuck: Stuck, sessions: Mapping[str, Sequence[Call]]) -> Iterator[Mistake]:
    """Yield the mistakes to try, the simple ones first."""
    life, call = stuck.stand.life, stuck.call
    if stuck.stand.ended is not None:
        yield Mistake("delete ignored", "The answer goes on from before the session's end.", stuck.stand.ended)
    if stuck.fault.kind == "wrong state":
        return  # the numbers were not looked at
    if call.ask.do == "advance":
        if life.step:
            yield Mistake("restarted in silence", "The numbers are those of a session that begins here.", replay.fresh)
        twice = replay.after(life, call.ask.items)
        yield Mistake("doubled", "The numbers are those of this event applied twice.", twice)
    elif life.before is not None:
        yield Mistake("stale read", "The numbers are those before the last event.", life.before)
    start, events = _events(life)
    for kind, text, variant in _variants(events):
        yield Mistake(kind, text, _walk(replay, start, variant))
    yield from _more_events(replay, stuck, sessions)


def _more_events(replay: Replay, stuck: Stuck, sessions: Mapping[str, Sequence[Call]]) -> Iterator[Mistake]:
    """Yield mistakes with one event more: of this session, then of others."""
    life, call = stuck.stand.life, stuck.call
    mine = call.sent.session
    for name in sorted(sessions, key=lambda name: name != mine):
        for other in sessions[name]:
            if other is call or not _near(replay, other, call):
                continue
            before = replay.after(life, other.ask.items)
            if name != mine:
                text = f"The numbers include an event of session {name}, in line {other.at}."
                yield Mistake("mixed", text, before)
            elif other.outcome.outcome == "refused":
                text = f"The numbers include an event that was refused, in {other.lines}."
                yield Mistake("applied though refused", text, before)
            elif other.done > call.at:
                text = f"The numbers are those of this event after a later one, in line {other.at}."
                yield Mistake("swapped", text, before)


def _variants(events: Events) -> Iterator[tuple[str, str, Events]]:
    """Yield a session's events with one left out, two exchanged, or one repeated."""
    for back in range(1, min(EVENTS, len(events)) + 1):
        place = len(events) - back
        which = "the last event" if back == 1 else f"the event {back} before this one"
        yield "lost", f"The numbers are those without {which}.", events[:place] + events[place + 1 :]
        if place:
            pair = [events[place], events[place - 1]]
            text = f"The numbers are those with {which} and the one before it exchanged."
            yield "swapped", text, events[: place - 1] + pair + events[place + 1 :]
        yield "doubled", f"The numbers are those with {which} applied twice.", events[: place + 1] + events[place:]


def _borrowed(call: Call, sessions: Mapping[str, Sequence[Call]]) -> Fault | None:
    """Return the fault of an answer whose predictions are another session's; None if they are nobody's."""
    for name, calls in sessions.items():
        for other in calls if name != call.sent.session else ():
            if other.ok and abs(other.at - call.at) <= NEAR and other.ask.top_k == call.ask.top_k:
                content = other.content
                if isinstance(content, dict) and content.get("predictions") == call.content["predictions"]:
                    return Fault("mixed", f"The predictions are those of session {name}, in line {other.done}.")
    return None


def _near(replay: Replay, other: Call, call: Call) -> bool:
    """Return whether another call is an event that may have been taken for one near a call."""
    return other.ask.do == "advance" and abs(other.at - call.at) <= NEAR and can_take(replay, other)


def _events(life: Life) -> tuple[Life, Events]:
    """Return where a life began, and its events since, at most a few more than EVENTS."""
    events: Events = []
    while life.before is not None and len(events) <= EVENTS:
        events.insert(0, life.items)
        life = life.before
    return life, events


def _walk(replay: Replay, start: Life, events: Events) -> Life:
    for items in events:
        start = replay.after(start, items)
    return start
