"""The places in the search for an order of a session's calls, and the way that the session came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .rules import Stand


class Losses(NamedTuple):
    """How often a session went back: `told`, the server said so; `untold`, it did not; and the steps that were lost."""

    told: int = 0
    untold: int = 0
    steps: int = 0

    def and_(self, other: Losses) -> Losses:
        """Return the sum."""
        return Losses(*(one + more for one, more in zip(self, other, strict=True)))


class Trail(NamedTuple):
    """Where a session stood before, and the rest of its way.

    Attributes:
        stand: where it stood.
        before: the rest.
        by: the server that answered the call that led on from here; None if nobody answered it.
    """

    stand: Stand
    before: Trail | None
    by: int | None = None

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

    def moved(self, stand: Stand, by: int | None = None) -> Place:
        """Return the same place with the session further on its way."""
        moves = stand is not self.stand
        return self._replace(stand=stand, trail=Trail(self.stand, self.trail, by) if moves else self.trail)

    def earlier(self, step: int | None, fresh: Stand) -> Iterator[Trail]:
        """Yield where the session stood at a step before, the latest first. At step 0 it may also be a fresh one."""
        yield from (earlier for earlier in Trail.back(self.trail) if earlier.stand.life.step == step)
        if step == 0:
            yield Trail(fresh, None)

    def answering(self, earlier: Trail) -> set[int]:
        """Return the servers that answered what is lost if the session goes back to where it stood."""
        servers = set()
        for lost in Trail.back(self.trail):
            if lost.by is not None:
                servers.add(lost.by)
            if lost is earlier:
                break
        return servers

    def gone_back(self, earlier: Trail, losses: Losses) -> Place:
        """Return the same place with the session back where it stood."""
        steps = max(0, self.stand.life.step - earlier.stand.life.step)
        lost = self.losses.and_(losses).and_(Losses(steps=steps))
        return self._replace(stand=earlier.stand, trail=earlier.before, losses=lost)


def _keys(stand: Stand) -> tuple[tuple[str, int], ...]:
    return tuple((key, id(due.after)) for key, due in stand.keys)
