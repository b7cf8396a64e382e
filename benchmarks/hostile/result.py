"""What a trial found, and which of it no server should let happen."""

from collections import Counter
from dataclasses import dataclass

from hostile.registry import Attack
from hostile.serving import End, Usage
from hostile.victim import Sample

GONE = "410 session_gone"
"""What the victim is told when its session was evicted."""


@dataclass(frozen=True)
class Result:
    """What one trial found."""

    attack: Attack
    keys: bool
    quiet: Sample
    during: Sample
    after: Sample
    lost: Counter[str]
    """Sessions of the victim, of those that it left alone, that are not as they were."""
    newcomers: tuple[int, int]
    """Clients that were answered of those that connected during the attack."""
    busy: float
    """Share of its core that the server used during the attack."""
    statuses: Counter[str]
    """How often the server gave an answer of each status from just before the attack until just after it."""
    before: Usage
    highest: Usage
    """The most memory and the most files during the attack."""
    settled: Usage | None
    """What the server uses after the attack; None if it has ended."""
    promised: int
    answers: bool
    """Whether a newcomer is answered after the attack."""
    end: End

    @property
    def growth(self) -> int:
        """Bytes by which the highest use of memory was above the one before the attack."""
        return self.highest.memory - self.before.memory

    @property
    def ratio(self) -> float:
        """The victim's 99th percentile during the attack, divided by the quiet one."""
        return self.during.percentile(99) / self.quiet.percentile(99)

    @property
    def errors(self) -> Counter[str]:
        """The victim's errors, before, during and after the attack."""
        return self.quiet.errors + self.during.errors + self.after.errors

    def _counts(self, kind: str) -> bool:
        """Whether an error is a fault: without keys all clients are one, whose new sessions replace its old ones."""
        return self.keys or kind != GONE

    @property
    def faults(self) -> list[str]:
        """What a server must not let happen, whatever its clients do."""
        faults = [f"{number} x {kind}" for kind, number in self.errors.items() if self._counts(kind)]
        faults += [
            f"{number} of the sessions left alone: {kind}" for kind, number in self.lost.items() if self._counts(kind)
        ]
        if not self.answers:
            faults.append("no answer after the attack")
        if self.end.status != 0:
            faults.append("killed after SIGTERM" if self.end.status is None else f"exit status {self.end.status}")
        return faults
