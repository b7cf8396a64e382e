"""A trial: servers under load, and what the clients have seen in the end."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

import httpx

from ..conftest import ROOT
from ..histories.check import Verdict, check, went_back
from ..histories.history import NEVER, Call, read
from ..histories.places import Losses
from ..histories.replay import Replay
from ..servers import ServerProcess
from ..waiting import until

PATIENCE = 180.0
"""Seconds to wait for the load to get on: many times what a busy machine takes."""

DEADLINE = 14.0
"""Seconds that a client waits for an answer. Servers in trials must refuse within it, whatever their store does: they
let a request wait 5 s for its turn, and its load and its commit 1 s each, or 5 s with a disk.
"""

STORE_SECONDS = "1"
"""The --store-timeout of servers in trials."""


class Replica(ServerProcess):
    """A server whose log is read as it comes, so that it is never held up by it.

    Attributes:
        log: its lines.
    """

    def __init__(self, bundle: Path, *arguments: str, **options: Any) -> None:
        super().__init__(bundle, *arguments, "--store-timeout", STORE_SECONDS, "--request-timeout", "5", **options)
        self.log: list[str] = []
        pipes = (self.process.stdout, self.process.stderr)
        self._readers = [Thread(target=self._read, args=(pipe,), daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: TextIO) -> None:
        with pipe:
            self.log.extend(pipe)

    def stop(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()

    def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=DEADLINE).status_code == 200
        except httpx.HTTPError:
            return False


class Onlooker:
    """Begins a session of its own, and looks at it while a server's store fails."""

    def __init__(self, server: Replica, item: str = "a") -> None:
        self._url = f"{server.url}/v1/sessions/looked-at"
        begun = httpx.post(f"{self._url}/events", json={"items": [item]}, timeout=DEADLINE)
        assert begun.status_code == 200, begun.text

    def require_answers(self) -> None:
        """Assert that a look is answered, with all that was acknowledged."""
        look = httpx.get(self._url, timeout=DEADLINE)
        assert (look.status_code, look.json().get("step")) == (200, 1), look.text


class Load:
    """The workload of tests/histories, beside a trial."""

    def __init__(self, bundle: Path, urls: list[str], file: Path, *, seconds: float = 600.0, workers: int = 6) -> None:
        program = [sys.executable, "-m", "tests.histories.workload", bundle, *urls, "-o", file]
        bounds = {"--seconds": seconds, "--workers": workers, "--timeout": DEADLINE}
        self._file = file
        self._read = self._ok = 0
        flags = [str(part) for pair in bounds.items() for part in pair]
        self.process = subprocess.Popen([*program, *flags], cwd=ROOT)

    def answered(self) -> int:
        """How many calls have been answered so far."""
        if self._file.exists():
            with self._file.open("rb") as lines:
                lines.seek(self._read)
                new = lines.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._ok += whole.count(b'"outcome":"ok"')
        return self._ok

    def go_on(self, calls: int = 200) -> None:
        """Wait until so many more calls are answered."""
        first = self.answered()
        until(lambda: self.answered() >= first + calls or self._ended(), pause=0.05, patience=PATIENCE)

    def _ended(self) -> bool:
        assert self.process.poll() is None, "the workload has ended"
        return False

    def stop(self) -> None:
        """End the workload; calls under way are left without an outcome."""
        self.process.kill()
        self.process.wait()


@contextmanager
def load(bundle: Path, urls: list[str], file: Path, *, workers: int = 6) -> Iterator[Load]:
    """Drive servers for the time of a block."""
    running = Load(bundle, urls, file, workers=workers)
    try:
        yield running
    finally:
        running.stop()


@dataclass
class Seen:
    """What clients have seen.

    Attributes:
        sessions: the calls of each session.
        verdicts: what the checker found.
        losses: the sessions that went back, if the store may lose steps.
    """

    sessions: dict[str, list[Call]]
    verdicts: list[Verdict]
    losses: dict[str, Losses] = field(default_factory=dict)

    @property
    def calls(self) -> list[Call]:
        """All calls."""
        return [call for calls in self.sessions.values() for call in calls]

    @property
    def lost(self) -> Losses:
        """How often sessions went back in all."""
        total = Losses()
        for one in self.losses.values():
            total = total.and_(one)
        return total

    def unknown(self) -> list[Call]:
        """The calls of which the clients do not know whether they were applied, but those under way at the end."""
        return [call for call in self.calls if not call.known and call.done != NEVER]

    def codes(self) -> Counter[str]:
        """How often each code of a refusal came, singly."""
        return Counter(call.code for call in self.calls if not call.ok and call.code)

    def silent(self) -> list[Call]:
        """The calls that got no answer within their deadline, though their server took them."""
        return [call for call in self.calls if "Timeout" in call.outcome.why]

    def require_right(self, *, silent: bool = False) -> None:
        """Assert that nothing is wrong, and that refusals came in time with Retry-After.

        Args:
            silent: whether calls may have got no answer.
        """
        assert not self.verdicts, "\n".join(map(str, self.verdicts))
        assert silent or not self.silent(), [(call.lines, call.outcome.why) for call in self.silent()]
        for call in self.calls:
            if call.outcome.status == 503 and call.sent.via == "single" and "own" not in call.outcome.why:
                assert call.outcome.retry_after, call.lines

    def __str__(self) -> str:
        outcomes = Counter(call.outcome.outcome for call in self.calls)
        ways = Counter(call.sent.via for call in self.calls if call.ok)
        keyed = Counter((call.sent.session, call.sent.key) for call in self.calls if call.sent.key)
        refused = [call.outcome.seconds for call in self.calls if call.outcome.status == 503]
        parts = [
            f"{len(self.sessions)} sessions, {outcomes.total()} calls",
            ", ".join(f"{outcomes[name]} {name}" for name in ("ok", "refused", "unknown")),
            ", ".join(f"{ways[name]} {name}" for name in ("single", "bulk", "stream")),
            f"{sum(keyed.values()) - len(keyed)} sent again",
            f"codes {dict(self.codes())}",
            f"{len(refused)} times 503 within {max(refused, default=0):.1f} s",
            f"{len(self.silent())} without an answer",
            went_back(self.losses) if self.losses else "no session went back",
            "nothing wrong" if not self.verdicts else f"WRONG: {Counter(one.kind for one in self.verdicts)}",
        ]
        return "; ".join(parts)


def seen(bundle: Path, file: Path, *, may_rewind: bool = False, started_anew: bool = False) -> Seen:
    """Return what the clients of a trial have seen.

    Args:
        bundle: the bundle that was served.
        file: the history.
        may_rewind: whether the store may have lost steps.
        started_anew: whether servers were started anew, so that they cannot say so.
    """
    sessions = read(file)
    losses: dict[str, Losses] = {}
    verdicts = check(Replay(bundle), sessions, losses=losses if may_rewind else None, silent=started_anew)
    return Seen(sessions, verdicts, losses)
