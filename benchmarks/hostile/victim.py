"""The client that is measured while others attack: single events one after the other, each checked."""

import json
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection as Pipe
from time import perf_counter, sleep
from typing import Any

import numpy as np
from hostile.client import Client, FaultError
from hostile.cores import prefer, stay_on
from hostile.wire import EVENTS, Target

SESSIONS = 20
"""Sessions that the victim uses all the time, and sessions that it leaves alone while others attack."""

EXPECTED = 0.005
"""Seconds from one event to the next, about, when nobody attacks."""

_PAUSE = 0.002  # seconds between an answer and the next event
_TIMEOUT = 10.0  # seconds that an answer may take
_WARM_UP = 100  # events that are not counted


@dataclass
class Sample:
    """What the victim saw for some seconds."""

    seconds: list[float] = field(default_factory=list)
    """How long each event took, those with an error included."""
    errors: Counter[str] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """Return the milliseconds that this share (0 to 100) of the events took at most.

        A slow answer keeps events from being sent. Each of them counts too, with the time from when it was due.
        """
        due = [np.arange(seconds, 0, -EXPECTED) for seconds in self.seconds]
        return float(np.percentile(np.concatenate(due), share)) * 1e3


class Victim:
    """A client with sessions in use and sessions left alone; it knows at which step each has to be."""

    def __init__(self, target: Target) -> None:
        self._target, self._client = target, Client(target, _TIMEOUT)
        self._items = target.items
        self._names = count()
        self._used = deque((self._name(), 0) for _ in range(SESSIONS))  # and at which step each is
        self._kept = {f"kept-{number}": self._begin(f"kept-{number}") for number in range(SESSIONS)}
        for _ in range(_WARM_UP):
            self._event()

    def measure(self, seconds: float) -> Sample:
        """Send events for so long."""
        sample = Sample()
        end = perf_counter() + seconds
        while (start := perf_counter()) < end:
            try:
                self._event()
            except FaultError as error:
                sample.errors[str(error)] += 1
            sample.seconds.append(perf_counter() - start)
            sleep(_PAUSE)
        return sample

    def lost(self) -> Counter[str]:
        """Return what is wrong with the sessions that were left alone: a further event and a retry must succeed.

        The event comes first: for a session that is lost, the retry would begin another one just like it.
        """
        faults: Counter[str] = Counter()
        for name, first in self._kept.items():
            try:
                self._advance(name, 1)
                faults["a retry got another answer"] += self._begin(name) != first
            except FaultError as error:
                faults[str(error)] += 1
        return +faults  # without those that did not occur

    def _name(self) -> str:
        return f"victim-{next(self._names)}"

    def _event(self) -> None:
        """Send the next session an event. After an error its step is not known, so another session takes its place."""
        name, step = self._used.popleft()
        after = (self._name(), 0)
        try:
            self._advance(name, step)
            after = (name, step + 1)
        finally:
            self._used.append(after)

    def _begin(self, name: str) -> bytes:
        """Send the first event of a session that is left alone; a repeat gets the first answer again."""
        return self._send(name, {"items": [self._items[0]]}, f"Idempotency-Key: {name}")

    def _advance(self, name: str, step: int) -> None:
        item = self._items[step % len(self._items)]
        answer = json.loads(self._send(name, {"items": [item], "expected_step": step}))
        state = "continued" if step else "new"
        if (answer["state"], answer["step"]) != (state, step + 1):
            raise FaultError(f"state {answer['state']} at step {answer['step']}, not {state} at {step + 1}")

    def _send(self, name: str, event: dict[str, Any], *headers: str) -> bytes:
        status, body = self._client.ask(self._target.post(EVENTS.format(name), event, *headers))
        if status != 200:
            raise FaultError(f"{status} {_code(body)}")
        return body


def _code(body: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["code"])
    return "without a code"


def live(target: Target, core: int, orders: Pipe) -> None:
    """Be a victim in a process of its own: measure for the seconds that are asked for; None asks what is lost.

    It is preferred over the attackers, which are on the same core.
    """
    stay_on(core)
    prefer()
    victim = Victim(target)
    orders.send(None)
    for seconds in _received(orders):
        orders.send(victim.lost() if seconds is None else victim.measure(seconds))


def _received(orders: Pipe) -> Iterator[float | None]:
    with suppress(EOFError):
        while True:
            yield orders.recv()
