"""The search for an order of a session's calls in which a right server gives every answer that was given.

The order keeps what is known of time: a call that was over before another was sent comes first, and calls of one
channel keep their order. A call of unknown outcome has a place in it or none. An answer tells the session's step, so
there is nearly always one call that can be next, and the search is one pass. Only where that pass ends early does it
go back, and try calls of unknown outcome or another order of calls that overlapped.

Where a store may lose steps, a session may go back to an earlier point of its own: the server says so, or it does not.
Both are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .answers import Fault, judge
from .history import NEVER, Call
from .replay import Replay, ReplayError
from .rules import DECIDED_BY_THE_SESSION, REWOUND, Due, Stand, can_take, serve

MOST_PLACES = 20_000
"""How many places the search visits for one session, on top of ten for each call, before it gives up."""


PASSING = (429, 503)
"""Refusals of calls that may be sent again. Later events of the session in a bulk request are refused too."""


class Losses(NamedTuple):
    """How often a session went back: `told`, the server said so; `untold`, it did not; and the steps that were lost."""

    told: int = 0
    untold: int = 0
    steps: int = 0

    def and_(self, other: Losses) -> Losses:
        """Return the sum."""
        return Losses(*(one + more for one, more in zip(self, other, strict=True)))


class Trail(NamedTuple):
    """Where a session stood before, and the rest of its way."""

    stand: Stand
    before: Trail | None

    @staticmethod
    def back(trail: Trail | None) -> Iterator[Trail]:
        """Yield the places of a way, the latest first."""
        while trail is not None:
            yield trail
            trail = trail.before


class Place(NamedTuple):
    """A place in the search: some calls have their turn behind them, and led to where the session stands.

    Attributes:
        low: how many calls of known outcome, from the first on, are all done.
        ahead: further calls of known outcome that are done.
        guessed: calls of unknown outcome that are taken to be applied.
        stand: where the session stands.
        trail: where it stood before; kept only where it may go back.
        losses: how often it went back.
    """

    low: int
    ahead: frozenset[int]
    guessed: frozenset[int]
    stand: Stand
    trail: Trail | None = None
    losses: Losses = Losses()

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
        rewinding: whether the store may lose the last steps of a session.

    Attributes:
        losses: how often the session went back, once an order is found.
    """

    def __init__(self, replay: Replay, calls: Sequence[Call], forgetful: bool = False, rewinding: bool = False) -> None:
        self.losses = Losses()
        self._replay = replay
        self._forgetful = forgetful
        self._rewinding = rewinding
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
                self.losses = place.losses
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
            if self._rewinding and call.code == REWOUND:
                yield from self._told(place, index)
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
        waiting = [self._known[index] for index in ready]
        yield from self._guesses(place, waiting)
        if self._rewinding:
            yield from self._untold(place, waiting)
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
        return self._standing(place, stand)._replace(low=low, ahead=ahead)

    def _standing(self, place: Place, stand: Stand) -> Place:
        """Return the same place with the session further on its way."""
        moved = self._rewinding and stand is not place.stand
        return place._replace(stand=stand, trail=Trail(place.stand, place.trail) if moved else place.trail)

    def _told(self, place: Place, index: int) -> Iterator[Place]:
        """Yield the places to which a refusal leads that says that the store has lost steps."""
        told = self._known[index].told
        if place.stand.life.step == told:  # the session went back before, unnoticed, or nobody had the lost steps
            yield self._advanced(place, index, place.stand)
        for earlier in self._earlier(place, told):
            yield self._advanced(self._gone_back(place, earlier, Losses(told=1)), index, earlier.stand)

    def _untold(self, place: Place, waiting: Sequence[Call]) -> Iterator[Place]:
        """Yield the earlier places of the session from which a call that waits can go on."""
        for step in {
            self._wanted(call) for call in waiting
        }:  # perhaps the same one, with other keys or another way to it
            for earlier in self._earlier(place, step):
                yield self._gone_back(place, earlier, Losses(untold=1))

    def _earlier(self, place: Place, step: int | None) -> Iterator[Trail]:
        """Yield where the session stood at a step before, the latest first."""
        yield from (earlier for earlier in Trail.back(place.trail) if earlier.stand.life.step == step)
        if step == 0:
            yield Trail(Stand(self._replay.fresh), None)

    def _gone_back(self, place: Place, earlier: Trail, losses: Losses) -> Place:
        steps = max(0, place.stand.life.step - earlier.stand.life.step)
        lost = place.losses.and_(losses).and_(Losses(steps=steps))
        return place._replace(stand=earlier.stand, trail=earlier.before, losses=lost)

    def _guesses(self, place: Place, ready: Sequence[Call]) -> Iterator[Place]:
        """Yield the places to which calls of unknown outcome lead, if they can help a call that waits."""
        bound = min((call.done for call in ready), default=NEVER)
        wanted = max((self._wanted(call) for call in ready), default=NEVER)
        for index, call in enumerate(self._unknown):
            if call.at > bound:
                break
            if index in place.guessed or self._overtaken(place, call):
                continue
            moves = call.ask.do in ("advance", "infer") and not call.ask.end and not call.ask.start
            if moves and place.stand.life.step + len(call.ask.items) > wanted:
                continue
            after, _ = serve(self._replay, place.stand, call)
            if after != place.stand:
                yield self._standing(place, after)._replace(guessed=place.guessed | {index})

    def _wanted(self, call: Call) -> int:
        """Return the step at which the session must stand for a call; NEVER if the call does not tell."""
        if call.code in ("unknown_session", "session_gone"):
            return 0
        if call.ask.do == "save" and call.ok and self._rewinding:
            return self._step_of(call.outcome.body)
        if call.told is None or call.ask.do == "restore" or call.ask.start:
            return NEVER
        return call.told - len(call.ask.items) if call.ok else call.told

    def _step_of(self, file: str) -> int:
        try:
            return self._replay.restored(file).step
        except ReplayError:
            return NEVER

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
