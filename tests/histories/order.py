"""The search for an order of a session's calls in which a right server gives every answer that was given.

The order keeps what is known of time: a call that was over before another was sent comes first, and calls of one
channel keep their order. A call of unknown outcome has a place in it or none. An answer tells the session's step, so
there is nearly always one call that can be next, and the search is one pass. Only where that pass ends early does it
go back, and try calls of unknown outcome or another order of calls that overlapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .answers import Fault, judge
from .history import NEVER, Call
from .replay import Replay
from .rules import DECIDED_BY_THE_SESSION, Due, Stand, can_take, serve

MOST_PLACES = 20_000
"""How many places the search visits for one session, on top of ten for each call, before it gives up."""


PASSING = (429, 503)
"""Refusals of calls that may be sent again. Later events of the session in a bulk request are refused too."""


class Place(NamedTuple):
    """A place in the search: some calls have their turn behind them, and led to where the session stands.

    Attributes:
        low: how many calls of known outcome, from the first on, are all done.
        ahead: further calls of known outcome that are done.
        guessed: calls of unknown outcome that are taken to be applied.
        stand: where the session stands.
    """

    low: int
    ahead: frozenset[int]
    guessed: frozenset[int]
    stand: Stand

    @property
    def done(self) -> int:
        """How many calls of known outcome are done."""
        return self.low + len(self.ahead)

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for places from which the search goes on alike."""
        stand = self.stand
        return self.low, self.ahead, self.guessed, id(stand.life), stand.restored, _keys(stand)


def _keys(stand: Stand) -> tuple[tuple[str, int], ...]:
    return tuple((key, id(due.after)) for key, due in stand.keys)


class Stuck(NamedTuple):
    """The end of a search in vain: the call that has no place, why, and where the session stood."""

    call: Call
    fault: Fault
    stand: Stand


class Search:
    """The search for an order of one session's calls.

    Args:
        replay: the model.
        calls: the session's calls, in the order in which they were sent.
        forgetful: whether the server may let a session go by itself, because it expired or a bound was reached.
    """

    def __init__(self, replay: Replay, calls: Sequence[Call], forgetful: bool = False) -> None:
        self._replay = replay
        self._forgetful = forgetful
        telling = [call for call in calls if _tells(call)]
        self._known = [call for call in telling if call.known]
        self._unknown = [call for call in telling if not call.known and can_take(replay, call)]
        self._of_channel: dict[int, list[int]] = {}
        for index, call in enumerate(self._known):
            self._of_channel.setdefault(call.sent.channel, []).append(index)
        self._held_back: dict[int, list[Call]] = {}
        for call in calls:
            if call.outcome.outcome == "refused" and call.outcome.status in PASSING:
                self._held_back.setdefault(call.sent.channel, []).append(call)
        self._most = MOST_PLACES + 10 * len(telling)
        self._furthest: tuple[int, list[Stuck]] = (-1, [])

    def run(self) -> Stuck | None:
        """Return None if there is an order, else the call at which the longest one ends."""
        for call in self._known:
            fault = self._hopeless(call) or self._overtaking(call)
            if fault is not None:
                return Stuck(call, fault, Stand(self._replay.fresh))
        start = Place(0, frozenset(), frozenset(), Stand(self._replay.fresh))
        seen = {start.identity}
        path = [self._next(start)] if self._known else []
        while path:
            place = next(path[-1], None)
            if place is None:
                path.pop()
            elif place.done == len(self._known):
                return None
            elif place.identity not in seen:
                seen.add(place.identity)
                path.append(self._next(place))
                if len(seen) > self._most:
                    return self._undecided()
        return self._furthest[1][0] if self._known else None

    def _hopeless(self, call: Call) -> Fault | None:
        """Return the fault of a call that is wrong wherever its place is."""
        if call.code == "internal":
            return Fault("failed", f"The server failed: {call.outcome.status} internal.")
        if call.ok and not can_take(self._replay, call):
            return Fault("wrong answer", "It was answered, but the model cannot take what was sent.")
        return None

    def _overtaking(self, call: Call) -> Fault | None:
        """Return the fault of an event of a bulk request that should have waited for an earlier one."""
        for other in self._held_back.get(call.sent.channel, ()):
            if call.ok and call.sent.via == "bulk" and other.at < call.at:
                text = f"An earlier event of its bulk request was refused for now, in {other.lines}; it was applied."
                return Fault("swapped", text)
        return None

    def _undecided(self) -> Stuck:
        stuck = self._furthest[1][0]
        text = f"No order was found in {self._most} places of the search; this one ends here. {stuck.fault.text}"
        return stuck._replace(fault=Fault("undecided", text))

    def _next(self, place: Place) -> Iterator[Place]:
        """Yield the places one call further, the likely ones first."""
        ready = self._ready(place)
        stuck = []
        for index in ready:
            call = self._known[index]
            after, due = serve(self._replay, place.stand, call)
            fault = judge(self._replay, place.stand, due, call)
            if fault is not None:
                stuck.append(Stuck(call, fault, place.stand))
                continue
            if isinstance(due, Due) and due.body is None and call.sent.key is not None:
                after = after.knowing(call.sent.key, call.outcome.body)
            yield self._advanced(place, index, after)
        if stuck and place.done > self._furthest[0]:
            self._furthest = place.done, stuck
        yield from self._guesses(place, [self._known[index] for index in ready])
        if self._forgetful and (place.stand.begun or place.stand.keys):
            yield place._replace(stand=Stand(self._replay.fresh))

    def _ready(self, place: Place) -> list[int]:
        """Return the calls of known outcome that can be next, those first whose outcome came first."""
        ready: list[int] = []
        bound = NEVER
        channels = set()
        for index in range(place.low, len(self._known)):
            call = self._known[index]
            if call.at > bound:
                break
            if index not in place.ahead:
                if call.sent.channel not in channels or not call.sent.channel:
                    ready.append(index)
                channels.add(call.sent.channel)
                bound = min(bound, call.done)
        return sorted(ready, key=lambda index: self._known[index].done)

    def _advanced(self, place: Place, index: int, stand: Stand) -> Place:
        low, ahead = place.low, place.ahead | {index}
        while low in ahead:
            ahead -= {low}
            low += 1
        return Place(low, ahead, place.guessed, stand)

    def _guesses(self, place: Place, ready: Sequence[Call]) -> Iterator[Place]:
        """Yield the places to which calls of unknown outcome lead, if they can help a call that waits."""
        bound = min((call.done for call in ready), default=NEVER)
        wanted = max((_wanted(call) for call in ready), default=NEVER)
        for index, call in enumerate(self._unknown):
            if call.at > bound:
                break
            if index in place.guessed or self._overtaken(place, call):
                continue
            if call.ask.do == "advance" and not call.ask.end and place.stand.life.step + len(call.ask.items) > wanted:
                continue
            after, _ = serve(self._replay, place.stand, call)
            if after != place.stand:
                yield place._replace(guessed=place.guessed | {index}, stand=after)

    def _overtaken(self, place: Place, call: Call) -> bool:
        """Return whether a later call of the same channel is done, so that this one has no place any more."""
        channel = call.sent.channel
        done = (i for i in self._of_channel.get(channel, ()) if i < place.low or i in place.ahead)
        later = [self._known[index].at for index in done]
        later += [self._unknown[index].at for index in place.guessed if self._unknown[index].sent.channel == channel]
        return bool(channel) and max(later, default=0) > call.at


def _tells(call: Call) -> bool:
    """Return whether the place of a call matters: it was or may have been applied, or its refusal names a step."""
    return call.outcome.outcome != "refused" or call.code in (*DECIDED_BY_THE_SESSION, "internal")


def _wanted(call: Call) -> int:
    """Return the step at which the session must stand for a call; NEVER if the call does not tell."""
    step = call.content.get("step") if isinstance(call.content, dict) else None
    if not isinstance(step, int) or call.ask.do == "restore":
        return NEVER
    return step - len(call.ask.items) if call.ok else step
