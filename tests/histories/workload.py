"""Drive servers and record a history: `python -m tests.histories.workload BUNDLE URL... -o FILE`.

Workers play sessions of their own for some seconds: single events, bulk requests, streams, with keys and without, with
the right expected step and with a wrong one, calls at once, repeats of answered keys, reads, moves of a state, ends,
deletions, sequences of `/v2` and predictions without a session. A worker goes on through refused connections, 503 and
timeouts, and sends a call with a key again until it is answered. The sessions' names are new in every run.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import secrets
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

import msgspec

from .client import Client, Event
from .history import Ask, Call, Item, Outcome, Recorder, Sent
from .labels import Labels, labels_of

TRIES = 40
"""How often a call is sent at most."""

PAUSE = 0.1
"""Seconds before a call is sent again, on average."""

REPEATED = 8
"""How many of a session's last keys are repeated; a server remembers 16."""


@dataclass
class Player:
    """A session as its worker knows it: its step, None if unsure, and its last answered events that had keys."""

    name: str
    step: int | None = 0
    answered: deque[Event] = field(default_factory=lambda: deque(maxlen=REPEATED))


class Worker:
    """Plays a few sessions, one action after the other.

    Args:
        client: sends the calls.
        labels: the model's items.
        names: the sessions.
        chance: decides what is done.
        until: the time to stop, by `monotonic`.
    """

    def __init__(
        self, client: Client, labels: Labels, names: Sequence[str], chance: random.Random, until: float
    ) -> None:
        self._client = client
        self._labels = labels.labels
        self._strangers = labels.strangers()
        self._players = {name: Player(name) for name in names}
        self._nameless = Player(f"{names[0]}-without-session")
        self._chance = chance
        self._until = until
        self._keys = count(1)

    async def run(self) -> None:
        """Play until it is time to stop."""
        while monotonic() < self._until:
            (action,) = self._chance.choices(list(ACTIONS), list(ACTIONS.values()))
            await action(self, self._chance.choice(list(self._players.values())))

    async def one(self, player: Player) -> None:
        """Send one event."""
        await self._send(self._event(player))

    async def at_once(self, player: Player) -> None:
        """Send several events, one of them twice, and a read, all at once."""
        events = [self._event(player, sure=False, key=True) for _ in range(self._chance.randint(1, 3))]
        read = Event(player.name, Ask("inspect"))
        await asyncio.gather(*(self._send(event) for event in (*events, events[0], read)))

    async def bulk(self, player: Player) -> None:
        """Send events of several sessions in one bulk request."""
        await self._many(self._client.bulk)

    async def stream(self, player: Player) -> None:
        """Send events of several sessions over one WebSocket."""
        await self._many(self._client.stream)

    async def repeat(self, player: Player) -> None:
        """Send an answered event again under its key, sometimes with another body."""
        if player.answered:
            event = self._chance.choice(player.answered)
            if event.ask.do == "advance" and self._chance.random() < 0.3:
                event = event._replace(ask=msgspec.structs.replace(event.ask, top_k=event.ask.top_k + 1))
            await self._send(event, repeated=True)

    async def conflict(self, player: Player) -> None:
        """Send an event that expects another step than the session's."""
        wrong = (player.step or 0) + self._chance.randint(1, 3)
        await self._send(Event(player.name, Ask("advance", self._items(), expected_step=wrong)))

    async def read(self, player: Player) -> None:
        """Ask where a session stands, for its predictions, or for its state."""
        ask = self._chance.choice([Ask("inspect"), Ask("predictions", top_k=4), Ask("save")])
        await self._send(Event(player.name, ask))

    async def move(self, player: Player) -> None:
        """Give a session's state to another session, or back to itself."""
        saved = await self._send(Event(player.name, Ask("save")))
        if saved.outcome == "ok":
            other = self._chance.choice(list(self._players))
            await self._send(Event(other, Ask("restore", file=saved.body), self._key()))

    async def infer(self, player: Player) -> None:
        """Send an event of a session by `/v2`; it may begin the session anew, and end it."""
        chance = self._chance
        start = player.step == 0 or chance.random() < 0.05
        ask = Ask("infer", self._listed(), chance.choice([3, 5]), start=start, end=chance.random() < 0.03)
        await self._send(Event(player.name, ask, self._key() if chance.random() < 0.6 else None))

    async def predict(self, player: Player) -> None:
        """Ask what follows some items, without a session."""
        ask = Ask("predict", self._items(), self._chance.choice([3, 5]))
        await self._send(Event(self._nameless.name, ask))

    async def delete(self, player: Player) -> None:
        """Delete a session."""
        await self._send(Event(player.name, Ask("delete"), self._key() if self._chance.random() < 0.5 else None))

    def _listed(self) -> tuple[Item, ...]:
        return tuple(self._chance.choices(self._labels, k=self._chance.choice([1, 1, 1, 2, 5])))

    def _items(self) -> tuple[Item, ...]:
        """Return items, sometimes one that is not listed and that the server takes all the same."""
        items = self._listed()
        strange = self._strangers and self._chance.random() < 0.3
        return (*items[:-1], self._chance.choice(self._strangers)) if strange else items

    def _key(self) -> str:
        return f"k{next(self._keys)}"

    def _event(self, player: Player, *, sure: bool = True, key: bool = False) -> Event:
        """Return an event of a session; if `sure`, its step may be expected, and the session may end with it."""
        chance = self._chance
        expected = player.step if sure and chance.random() < 0.5 else None
        exclude = (chance.choice(self._labels),) if chance.random() < 0.1 else ()
        end = sure and chance.random() < 0.03
        ask = Ask("advance", self._items(), chance.choice([3, 5]), expected, exclude, end)
        return Event(player.name, ask, self._key() if key or chance.random() < 0.6 else None)

    async def _send(self, event: Event, *, repeated: bool = False) -> Outcome:
        """Send a call, again if that is safe and may help, and note what its answer tells."""
        for _ in range(TRIES):
            outcome = await self._client.single(event)
            if not _worthwhile(event, outcome) or monotonic() > self._until:
                break
            await self._wait()
        if not repeated:
            self._note(event, outcome)
        return outcome

    async def _many(self, send: Callable[[Sequence[Event]], Awaitable[list[Outcome]]]) -> None:
        """Send events of several sessions together; those that may be sent again are, in their order."""
        players = self._chance.choices(list(self._players.values()), k=self._chance.randint(2, 8))
        events = [self._event(player, sure=False) for player in players]
        for _ in range(TRIES):
            outcomes = await send(events)
            for event, outcome in zip(events, outcomes):
                self._note(event, outcome)
            unsent = events[len(outcomes) :]
            events = [event for event, outcome in zip(events, outcomes) if _worthwhile(event, outcome)] + unsent
            if not events or monotonic() > self._until:
                break
            await self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE))

    def _note(self, event: Event, outcome: Outcome) -> None:
        """Note what an outcome tells of a session: its step, and a key that can be repeated."""
        player = self._players.get(event.session, self._nameless)
        if outcome.outcome == "unknown":
            player.step = None
        elif outcome.outcome == "ok" and (event.ask.do == "delete" or event.ask.end):
            player.step = 0
        elif event.ask.do != "save" and outcome.body:
            told = Call(Sent(outcome.call, event.session, event.ask), outcome, 0, 0).told
            player.step = player.step if told is None else told
        if outcome.outcome == "ok" and event.key is not None:
            player.answered.append(event)


ACTIONS = {
    Worker.one: 10,
    Worker.at_once: 3,
    Worker.bulk: 3,
    Worker.stream: 3,
    Worker.repeat: 4,
    Worker.conflict: 2,
    Worker.read: 4,
    Worker.infer: 4,
    Worker.predict: 2,
    Worker.move: 1,
    Worker.delete: 1,
}
"""What a worker does, and how often compared with the rest."""


def _worthwhile(event: Event, outcome: Outcome) -> bool:
    """Return whether to send a call again: it was not applied for now, or nobody knows and it has a key or reads."""
    if outcome.outcome == "unknown":
        return event.key is not None or event.ask.do in ("predictions", "inspect", "save", "predict")
    return outcome.outcome == "refused" and outcome.status in (0, 429, 503)


async def drive(
    urls: Sequence[str],
    labels: Labels,
    file: Path,
    *,
    seconds: float,
    seed: int = 0,
    workers: int = 8,
    sessions: int = 4,
    timeout: float = 5.0,
) -> None:
    """Drive servers and write the history.

    Args:
        urls: the servers; requests go to them in turn.
        labels: the items that the model has.
        file: the history; it is written anew.
        seconds: for how long.
        seed: decides what is asked, as far as the answers do not.
        workers: how many sessions are played at once, at least.
        sessions: how many sessions each worker has.
        timeout: how many seconds to wait for an answer.
    """
    until, run = monotonic() + seconds, secrets.token_hex(3)
    with file.open("w", encoding="utf-8") as lines:
        client = Client(Recorder(lines, seed, urls), urls, timeout, labels.labels)
        playing = []
        for number in range(workers):
            names = [f"{run}-{number}-{session}" for session in range(sessions)]
            playing.append(Worker(client, labels, names, random.Random(f"{seed}/{number}"), until).run())
        await asyncio.gather(*playing)
        await client.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Drive the servers that the command line names; return the exit status, 2 for bad input."""
    text = __doc__.partition("\n\n")[2]
    parser = argparse.ArgumentParser(prog="python -m tests.histories.workload", description=text)
    parser.add_argument("bundle", type=Path, help="the folder of the bundle that is served")
    parser.add_argument("urls", nargs="+", type=_url, metavar="URL", help="a server, such as http://127.0.0.1:8080")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file of the history")
    parser.add_argument("--seconds", type=_positive, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8, help="how many sessions are played at once, at least")
    parser.add_argument("--sessions", type=int, default=4, help="sessions of each worker")
    parser.add_argument("--timeout", type=_positive, default=5.0, help="seconds to wait for an answer")
    options = parser.parse_args(arguments)
    if min(options.workers, options.sessions) < 1:
        parser.error(f"--workers is {options.workers} and --sessions {options.sessions}; both must be at least 1")
    bounds = {name: getattr(options, name) for name in ("seconds", "seed", "workers", "sessions", "timeout")}
    try:
        labels = labels_of(options.bundle)
        options.output.touch()
    except OSError as error:
        print(f"{error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    except (KeyError, TypeError, ValueError) as error:
        print(f"{options.bundle} is not a bundle: {error!r}.", file=sys.stderr)
        return 2
    asyncio.run(drive(options.urls, labels, options.output, **bounds))
    return 0


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; it must begin with http:// or https://")
    return text


def _positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; it must be above 0")
    return float(text)


if __name__ == "__main__":
    raise SystemExit(main())
