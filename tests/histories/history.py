"""The file of a history: lines of JSON, each an object whose `line` says what it is.

A call is one thing asked of one session. It has a line `sent`, written before its first byte leaves, and a line
`outcome`, written once its outcome is known. So the order of lines is the order of time: a call whose outcome stands
before another's `sent` was over before that one began. A call without an outcome, as a killed workload leaves it, has
the outcome `unknown`. A last line that does not end is left out.

    {"line": "history", "format": "arraylstm-history-1", "seed": 5, "servers": ["http://127.0.0.1:8080"]}
    {"line": "sent", "call": 1, "session": "anna", "ask": {"do": "advance", "items": ["a"], "top_k": 3}, "key": "k1",
     "via": "single", "channel": 1, "server": 0}
    {"line": "outcome", "call": 1, "outcome": "ok", "status": 200, "body": "{\\"session_id\\": ...}"}

`do` is `advance` (items, top_k, expected_step, exclude, end), `predictions` (top_k), `inspect`, `delete`, `save`,
`restore` (file), `infer` (items, top_k, start, end: a request of `/v2`, the session being its sequence) or `predict`
(items, top_k, exclude: no session, so that `session` is a name of the workload's own). `via` is `single`, `bulk` or
`stream`. A `channel` is one bulk request or one stream: its calls apply
in the order of their lines if they are of one session. `server` is the place of the address in the first line. `body`
is the text of the answer, byte for byte; for a state file it is base64, as in `restore`.

The outcome is `ok` (the call was applied and answered), `refused` (it was not applied) or `unknown` (it may have been
applied, may be applied later, or never: a timeout, a connection cut, a refusal that says so); `why` tells why it is
unknown. `seconds` is how long it took, and `retry_after` what the header of that name said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec
from msgspec import Struct

FORMAT = "arraylstm-history-1"
NEVER = 2**62
"""The line of an outcome that is not there: later than all others."""

Item = int | str
Do = Literal["advance", "predictions", "inspect", "delete", "save", "restore", "infer", "predict"]
Via = Literal["single", "bulk", "stream"]
Known = Literal["ok", "refused", "unknown"]

SAID_BY_V2 = {
    "must specify the START flag": "unknown_session",
    "was sent before with another request": "idempotency_key_reused",
    "has lost steps": "session_rewound",
}
"""The codes of the refusals of `/v2`, which have none, by what they say."""


class HistoryError(Exception):
    """The file is not a history; the message names the line."""


class Ask(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a call asks for."""

    do: Do
    items: tuple[Item, ...] = ()
    top_k: int = 10
    expected_step: int | None = None
    exclude: tuple[Item, ...] = ()
    end: bool = False
    file: str = ""
    start: bool = False


class Header(Struct, frozen=True, tag_field="line", tag="history"):
    """The first line: how the history was made."""

    format: str
    seed: int = 0
    servers: list[str] = []


class Sent(Struct, frozen=True, omit_defaults=True, tag_field="line", tag="sent", forbid_unknown_fields=True):
    """A call that is about to be sent."""

    call: int
    session: str
    ask: Ask
    key: str | None = None
    via: Via = "single"
    channel: int = 0
    server: int = 0


class Outcome(Struct, frozen=True, omit_defaults=True, tag_field="line", tag="outcome", forbid_unknown_fields=True):
    """What came of a call. `status` is 0 if no answer came."""

    call: int
    outcome: Known
    status: int = 0
    body: str = ""
    why: str = ""
    seconds: float = 0.0
    retry_after: str = ""


Line = Header | Sent | Outcome
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """A call and its outcome; `at` and `done` are the numbers of their lines, `done` is NEVER without an outcome."""

    sent: Sent
    outcome: Outcome
    at: int
    done: int

    @property
    def ask(self) -> Ask:
        """What is asked for."""
        return self.sent.ask

    @property
    def known(self) -> bool:
        """Whether it is known if the call was applied."""
        return self.outcome.outcome != "unknown"

    @property
    def ok(self) -> bool:
        """Whether the call was applied and answered."""
        return self.outcome.outcome == "ok"

    @property
    def content(self) -> Any:
        """The answer as JSON; None if it is not JSON."""
        try:
            return msgspec.json.decode(self.outcome.body)
        except msgspec.DecodeError:
            return None

    @property
    def code(self) -> str:
        """The code of a refusal; empty if it has none."""
        content = self.content
        if not isinstance(content, dict):
            return ""
        if self.ask.do == "infer":
            said = str(content.get("error", ""))
            code = next((code for words, code in SAID_BY_V2.items() if words in said), "")
            return "internal" if self.outcome.status == 500 else code
        return str(content.get("code", ""))

    @property
    def told(self) -> int | None:
        """The step that the answer tells; None if it tells none. A state file tells it inside."""
        content = self.content
        if not isinstance(content, dict):
            return None
        step = content.get("step")
        if self.ask.do == "infer":
            step = _step_of_v2(content, self.code)
        return step if isinstance(step, int) else None

    @property
    def lines(self) -> str:
        """Where the call stands in the file."""
        return f"line {self.at}" if self.done == NEVER else f"lines {self.at} and {self.done}"


class Recorder:
    """Writes a history as it goes; each line reaches the operating system before the call goes on."""

    def __init__(self, file: TextIO, seed: int = 0, servers: Iterable[str] = ()) -> None:
        self._file = file
        self._calls = self._channels = 0
        self._write(Header(FORMAT, seed, list(servers)))

    def channel(self) -> int:
        """Return the number of a new channel."""
        self._channels += 1
        return self._channels

    def sent(self, session: str, ask: Ask, key: str | None, via: Via, channel: int, server: int) -> int:
        """Record that a call is about to be sent; return its number."""
        self._calls += 1
        self._write(Sent(self._calls, session, ask, key, via, channel, server))
        return self._calls

    def outcome(self, outcome: Outcome) -> Outcome:
        """Record what came of a call."""
        self._write(outcome)
        return outcome

    def _write(self, line: Line) -> None:
        self._file.write(msgspec.json.encode(line).decode() + "\n")
        self._file.flush()


def _step_of_v2(content: dict[str, Any], code: str) -> int | None:
    """Return the step in an answer of /v2, or in its refusal."""
    if code == "session_rewound":
        found = re.search(r"stands at step (\d+) now", str(content["error"]))
        return int(found[1]) if found else None
    try:
        return int(next(output["data"][0] for output in content["outputs"] if output["name"] == "step"))
    except (KeyError, IndexError, TypeError, ValueError, StopIteration):
        return None


def read(path: Path) -> dict[str, list[Call]]:
    """Return the calls of each session, in the order in which they were sent.

    Raises:
        HistoryError: the file cannot be read, or a line of it does not belong into a history.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}.") from None
    return pair(parse(content, str(path)))


def parse(content: bytes, name: str = "the history") -> Iterator[tuple[int, Line]]:
    """Yield the lines of a history with their numbers.

    Raises:
        HistoryError: a line is not one of a history.
    """
    lines = content.split(b"\n")[:-1]  # behind the last line's end there is nothing, or a line that does not end
    if not lines:
        raise HistoryError(f"{name} is empty.")
    for number, text in enumerate(lines, 1):
        try:
            line = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HistoryError(f"Line {number} of {name} is not a line of a history: {error}.") from None
        if isinstance(line, Header) != (number == 1):
            raise HistoryError(f'Line {number} of {name} is out of place: a history has one line "history", its first.')
        if isinstance(line, Header) and line.format != FORMAT:
            raise HistoryError(f"{name} has the format {line.format!r}; this checker reads {FORMAT!r}.")
        yield number, line


def pair(lines: Iterable[tuple[int, Line]]) -> dict[str, list[Call]]:
    """Return the calls of each session, each with its outcome, in the order in which they were sent.

    Raises:
        HistoryError: a call is sent twice, or an outcome has no call or is a second one.
    """
    sent: dict[int, tuple[int, Sent]] = {}
    outcomes: dict[int, tuple[int, Outcome]] = {}
    for number, line in lines:
        if isinstance(line, Sent):
            if line.call in sent:
                raise HistoryError(f"Line {number}: call {line.call} was sent before, in line {sent[line.call][0]}.")
            sent[line.call] = number, line
        elif isinstance(line, Outcome):
            if line.call not in sent:
                raise HistoryError(f"Line {number} is the outcome of call {line.call}, which was not sent before.")
            if line.call in outcomes:
                first = outcomes[line.call][0]
                raise HistoryError(f"Line {number} is a second outcome of call {line.call}; the first is line {first}.")
            outcomes[line.call] = number, line
    sessions: dict[str, list[Call]] = {}
    for number, (at, line) in sent.items():
        done, outcome = outcomes.get(number, (NEVER, Outcome(number, "unknown", why="the history ends before")))
        sessions.setdefault(line.session, []).append(Call(line, outcome, at, done))
    return sessions
