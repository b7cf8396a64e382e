"""The search for an order of a session's calls in which a right server gives every answer that was given.

The order keeps what is known of time: a call that was over before another was sent comes first, and calls of one
channel keep their order. A call of unknown outcome has a place in it or none. An answer tells the session's step, so
there is nearly always one call that can be next, and the search is one pass. Only where that pass ends early does it
go back, and try calls of unknown outcome or another order of calls that overlapped.

Where a store may lose steps, a session may go back to an earlier point of its own: the server says so, or it does not.
Both are counted, in an order with the fewest losses: a loss is tried only after every order with fewer. A server that
had answered the lost steps must say so, unless it was started anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .answers import Fault, judge, untold
from .history import NEVER, Call
from .places import Losses, Place
from .replay import Replay, ReplayError
from .rules import DECIDED_BY_THE_SESSION, REWOUND, Due, Stand, can_take, serve

MOST_PLACES = 20_000
"""How many places the search visits for one session, on top of ten for each call, before it gives up."""


PASSING = (429, 503)
"""Refusals of calls that may be sent again. Later events of the session in a bulk request are refused too."""


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
        silent: whether servers that had answered lost steps may go on without saying so.

    Attributes:
        losses: how often the session went back, once an order is found.
    """

    def __init__(
        self,
        replay: Replay,
        calls: Sequence[Call],
        *,
        forgetful: bool = False,
        rewinding: bool = False,
        silent: bool = False,
    ) -> None:
        self.losses = Losses()
        self._replay = replay
        self._forgetful = forgetful
        self._rewinding = rewinding
        self._silent = silent
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
        self._fresh = Stand(replay.fresh)
        self._seen: set[tuple[object, ...]] = set()
        self._gone_back: list[Place] = []

    def run(self) -> Stuck | None:
        """Return None if there is an order, else the call at which the longest one ends."""
        for call in self._known:
            fault = self._hopeless(call) or self._overtaking(call)
            if fault is not None:
                return Stuck(call, fault, self._fresh)
        starts = [Place(0, frozenset(), frozenset(), self._fresh)] if self._known else []
        while starts:
            end = self._end_of(starts)
            if end is not None:
                self.losses = end.losses
                return None
            if len(self._seen) > self._most:
                return self._undecided()
            starts, self._gone_back = self._gone_back, []
        return self._furthest[1][0] if self._known else None

    def _end_of(self, starts: Sequence[Place]) -> Place | None:
        """Return where an order ends that goes on from one of some places without a loss; None if there is none.

        `_gone_back` gets the places to which one more loss leads.
        """
        path = [iter(starts)]
        while path and len(self._seen) <= self._most:
            place = next(path[-1], None)
            if place is None:
                path.pop()
            elif place.done == len(self._known):
                return place
            elif place.identity not in self._seen:
                self._seen.add(place.identity)
                path.append(self._next(place))
        return None

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
        """Yield the places one call further without a loss, the likely ones first."""
        ready = self._ready(place)
        stuck = []
        for index in ready:
            if self._rewinding and self._known[index].code == REWOUND:
                yield from self._told(place, index)
            found = self._served(place, index)
            if isinstance(found, Place):
                yield found
            else:
                stuck.append(found)
        if self._rewinding:
            stuck = self._untold(place, ready) + stuck
        if stuck and place.done > self._furthest[0]:
            self._furthest = place.done, stuck
        yield from self._guesses(place, [self._known[index] for index in ready])
        if self._forgetful and (place.stand.begun or place.stand.keys):
            yield place._replace(stand=self._fresh)

    def _served(self, place: Place, index: int) -> Place | Stuck:
        """Return the place after a call, or why a right server cannot have answered it so."""
        call = self._known[index]
        after, due = serve(self._replay, place.stand, call)
        fault = judge(self._replay, place.stand, due, call)
        if fault is not None:
            return Stuck(call, fault, place.stand)
        if isinstance(due, Due) and due.body is None and call.sent.key is not None:
            after = after.knowing(call.sent.key, call.outcome.body)
        return self._advanced(place, index, after)

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
        call = self._known[index]
        return self._moved(place, stand, call.sent.server if call.ok else None)._replace(low=low, ahead=ahead)

    def _moved(self, place: Place, stand: Stand, by: int | None = None) -> Place:
        """Return the same place with the session further on its way, which is kept only where it may go back."""
        return place.moved(stand, by) if self._rewinding else place._replace(stand=stand)

    def _told(self, place: Place, index: int) -> Iterator[Place]:
        """Yield and note the places to which a refusal leads that says that the store has lost steps."""
        told = self._known[index].told
        if place.stand.life.step == told:  # the session went back before, unnoticed, or nobody had the lost steps
            yield self._advanced(place, index, place.stand)
        for earlier in place.earlier(told, self._fresh):
            back = place.gone_back(earlier, Losses(told=1))
            self._gone_back.append(self._advanced(back, index, earlier.stand))

    def _untold(self, place: Place, ready: Sequence[int]) -> list[Stuck]:
        """Note the places to which calls lead that met the session at an earlier point, though nobody said so.

        Returns:
            The calls whose server should have said so.
        """
        silent = []
        for index in ready:
            call = self._known[index]
            for earlier in place.earlier(self._wanted(call), self._fresh) if call.code != REWOUND else ():
                found = self._served(place.gone_back(earlier, Losses(untold=1)), index)
                if isinstance(found, Stuck):
                    continue
                if self._may_be_silent(call) or call.sent.server not in place.answering(earlier):
                    self._gone_back.append(found)
                else:
                    silent.append(Stuck(call, untold(place.stand, call), place.stand))
        return silent

    def _may_be_silent(self, call: Call) -> bool:
        """Return whether a call's server need not say that steps are lost: it compares nothing for a look."""
        return self._silent or call.ask.do == "inspect"

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
                yield self._moved(place, after)._replace(guessed=place.guessed | {index})

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
