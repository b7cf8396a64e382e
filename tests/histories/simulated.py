"""A simulated server, whose sessions a test may spoil, and a script that writes the history of its clients.

The server shares the replay's numbers with the checker, and none of its rules.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy

from .history import NEVER, Ask, Call, Item, Known, Outcome, Sent, Via
from .replay import Life, Replay, Seen, probabilities


@dataclass
class Session:
    """A session of the simulated server."""

    life: Life
    restored: bool = False
    keys: dict[str, tuple[Ask, str]] = field(default_factory=dict)


Answer = tuple[int, str]


class Simulated:
    """A server that takes a call at a time; a test may change `sessions` as a faulty one would."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.sessions: dict[str, Session] = {}

    def handle(self, name: str, ask: Ask, key: str | None) -> Answer:
        """Apply a call; return the status and body of its answer."""
        session = self.sessions.setdefault(name, Session(self.replay.fresh))
        if key in session.keys and ask.do != "predict":
            first, body = session.keys[key]
            return (200, body) if first == ask else refusal("idempotency_key_reused", 422)
        status, body = getattr(self, ask.do)(name, session, ask)
        if key and status < 300 and ask.do in ("advance", "delete", "infer", "restore"):
            session.keys[key] = ask, body
            while len(session.keys) > 16:
                del session.keys[next(iter(session.keys))]
        return status, body

    def advance(self, name: str, session: Session, ask: Ask) -> Answer:
        """Consume items."""
        before, step = self.state(session), session.life.step
        if ask.expected_step is not None and ask.expected_step != step:
            return refusal("step_conflict", 409, step=step) if step else refusal("session_gone", 410)
        life = self.replay.after(session.life, ask.items)
        seen = life.seen if ask.items else ()
        observed = self.observed(ask.items, seen)
        session.life, session.restored = (self.replay.fresh if ask.end else life), False
        return self.answer(name, life, before, ask, observed)

    def predictions(self, name: str, session: Session, ask: Ask) -> Answer:
        """Tell what may come next."""
        if not session.life.step:
            return refusal("unknown_session", 404)
        return self.answer(name, session.life, self.state(session), ask, [])

    def inspect(self, name: str, session: Session, ask: Ask) -> Answer:
        """Tell where the session stands."""
        if not session.life.step:
            return refusal("unknown_session", 404)
        facts = {"session_id": name, "step": session.life.step, "model": self.replay.fingerprint}
        return 200, dumped(facts | {"recent": list(session.life.recent)})

    def delete(self, name: str, session: Session, ask: Ask) -> Answer:
        """Forget the session."""
        if not session.life.step:
            return refusal("unknown_session", 404)
        session.life, session.restored = self.replay.fresh, False
        session.keys.clear()
        return 204, ""

    def infer(self, name: str, session: Session, ask: Ask) -> Answer:
        """Consume items of a sequence of /v2."""
        if not ask.start and not session.life.step:
            said = (
                "inference request for sequence x to model 'arraylstm' must specify the START flag on the first request"
            )
            return 400, dumped({"error": said})
        life = self.replay.after(self.replay.fresh if ask.start else session.life, ask.items)
        session.life, session.restored = (self.replay.fresh if ask.end else life), False
        return self.tensors(life, ask)

    def predict(self, name: str, session: Session, ask: Ask) -> Answer:
        """Tell what may come after some items, without a session."""
        life = self.replay.after(self.replay.fresh, ask.items)
        observed = self.observed(ask.items, life.seen)
        status, body = self.answer(name, life, "new", ask, observed)
        whole = msgspec.json.decode(body)
        return status, dumped({field: whole[field] for field in ("model", "predictions", "observed")})

    def tensors(self, life: Life, ask: Ask) -> Answer:
        """Write an answer of /v2."""
        assert life.logits is not None
        chances = probabilities(life.logits).astype(np.float32)
        order = [i for i in np.argsort(-life.logits, kind="stable") if i != self.replay.items.unknown][: ask.top_k]
        data = {
            "step": [life.step],
            "predictions": [str(self.replay.labels[index]) for index in order],
            "probabilities": [float(chances[index]) for index in order],
            "logits": life.logits.tolist(),
        }
        return 200, dumped({"outputs": [{"name": name, "data": values} for name, values in data.items()]})

    def save(self, name: str, session: Session, ask: Ask) -> Answer:
        """Give the state."""
        if not session.life.step:
            return refusal("unknown_session", 404)
        return 200, saved(self.replay, session.life)

    def restore(self, name: str, session: Session, ask: Ask) -> Answer:
        """Take a state."""
        session.life, session.restored = self.replay.restored(ask.file), True
        return self.inspect(name, session, ask)

    def observed(self, items: Sequence[Item], seen: Sequence[Seen]) -> list[dict[str, Any]]:
        """Tell what the model gave to items, and which of them it does not have."""
        observed = []
        for item, one in zip(items, seen):
            observed.append({"item": item, "probability": one and one[0], "rank": one and one[1]})
            if not {item, str(item)} & {*self.replay.labels, *map(str, self.replay.labels)}:
                observed[-1]["unknown"] = True
        return observed

    def state(self, session: Session) -> str:
        """What an answer calls the session."""
        return "restored" if session.restored else "continued" if session.life.step else "new"

    def answer(self, name: str, life: Life, state: str, ask: Ask, observed: list[dict[str, Any]]) -> Answer:
        """Write a session's answer."""
        assert life.logits is not None
        chances = probabilities(life.logits)
        never = {self.replay.items.unknown, *(self.replay.labels.index(item) for item in ask.exclude)}
        order = [index for index in np.argsort(-life.logits, kind="stable") if index not in never]
        likely = [
            {"item": self.replay.labels[index], "probability": float(chances[index])} for index in order[: ask.top_k]
        ]
        facts = {"session_id": name, "step": life.step, "state": state, "model": self.replay.fingerprint}
        return 200, dumped(facts | {"predictions": likely, "observed": observed})


class Script:
    """Writes a history: a call is sent, applied, and then answered or lost; `call` does all of it.

    Attributes:
        server: the server, whichever address is asked.
        at: the place of the address that is asked now.
    """

    def __init__(self, replay: Replay) -> None:
        self.server = Simulated(replay)
        self.at = 0
        self.lines: list[Sent | Outcome] = []
        self._calls = 0

    def sent(self, name: str, ask: Ask, key: str | None = None, *, via: Via = "single", channel: int = 0) -> Sent:
        """Send a call."""
        self._calls += 1
        line = Sent(self._calls, name, ask, key, via, channel, self.at)
        self.lines.append(line)
        return line

    def apply(self, line: Sent) -> Answer:
        """Let the server apply a call."""
        return self.server.handle(line.session, line.ask, line.key)

    def answered(self, line: Sent, answer: Answer) -> None:
        """Answer a call."""
        status, body = answer
        known: Known = "ok" if status < 300 else "refused"
        self.lines.append(Outcome(line.call, known, status, body))

    def lost(self, line: Sent) -> None:
        """Lose the answer to a call, or the call itself."""
        self.lines.append(Outcome(line.call, "unknown", why="cut"))

    def call(self, name: str, ask: Ask, key: str | None = None) -> Answer:
        """Send a call, apply and answer it."""
        line = self.sent(name, ask, key)
        answer = self.apply(line)
        self.answered(line, answer)
        return answer

    def event(self, name: str, *items: Item, key: str | None = None, **fields: Any) -> dict[str, Any]:
        """Send an event, apply and answer it; return the answer."""
        answer: dict[str, Any] = msgspec.json.decode(self.call(name, advance(*items, **fields), key)[1])
        return answer

    def calls(self) -> dict[str, list[Call]]:
        """Return the history."""
        outcomes = {line.call: (at, line) for at, line in enumerate(self.lines, 2) if isinstance(line, Outcome)}
        sessions: dict[str, list[Call]] = {}
        for at, line in enumerate(self.lines, 2):
            if isinstance(line, Sent):
                done, outcome = outcomes.get(line.call, (NEVER, Outcome(line.call, "unknown")))
                sessions.setdefault(line.session, []).append(Call(line, outcome, at, done))
        return sessions


def advance(*items: Item, **fields: Any) -> Ask:
    """An event with three predictions."""
    return Ask("advance", items, **{"top_k": 3, **fields})


def altered(body: str, **fields: Any) -> str:
    """A body with some fields changed."""
    return dumped(msgspec.json.decode(body) | fields)


def dumped(content: Any) -> str:
    """Write JSON."""
    return msgspec.json.encode(content).decode()


def refusal(code: str, status: int, **fields: Any) -> Answer:
    """Write a refusal."""
    return status, dumped({"type": f"urn:arraylstm:problem:{code}", "status": status, "code": code, **fields})


def saved(replay: Replay, life: Life) -> str:
    """Write a state file, in base64."""
    assert life.logits is not None
    tensors = {f"state_{name}": value for name, value in life.states.items()}
    tensors |= {
        "logits": life.logits,
        "recent": np.array([replay.items.taken(item) for item in life.recent], np.int64),
    }
    facts = {"format": "arraylstm-session-1", "model": replay.fingerprint, "step": str(life.step)}
    return base64.b64encode(safetensors.numpy.save(tensors, facts)).decode()


def posing(life: Life, as_step: int) -> Life:
    """A life that claims another step than its own."""
    return replace(life, step=as_step, later={})
