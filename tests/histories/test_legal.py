"""Legal histories, made by hypothesis, are found right, and are found wrong once an answer is altered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..serve.bundles import LABELS
from .check import check
from .history import Ask, Outcome, Sent
from .replay import Replay
from .simulated import Script, altered


def test_a_key_is_remembered_for_sixteen_more_and_not_for_ever(replay: Replay) -> None:
    """A repeat after 16 newer keys may be applied again; one before that may not."""
    script = Script(replay)
    script.event("anna", "a", key="first")
    for number in range(15):
        script.event("anna", "b", key=f"k{number}")
    assert script.event("anna", "a", key="first")["step"] == 1
    script.event("anna", "b", key="k15")
    assert script.event("anna", "a", key="first")["step"] == 18
    assert not check(replay, script.calls())


class Clients:
    """Clients of a right server, whose calls overlap, are lost, come late and repeat keys.

    Attributes:
        waiting: calls sent and neither answered nor lost.
        late: calls lost on their way, which may still arrive.
        applied: the answers of the calls that the server has applied.
    """

    def __init__(self, replay: Replay, draw: Callable[..., Any]) -> None:
        self.script = Script(replay)
        self.draw = draw
        self.waiting: list[Sent] = []
        self.late: list[Sent] = []
        self.applied: dict[int, tuple[int, str]] = {}

    def send(self) -> None:
        """Send a call."""
        ask = self.draw(
            asks([body for status, body in self.applied.values() if status == 200 and body[:1] not in ("", "{")])
        )
        key = self.draw(st.sampled_from([None, None, "k1", "k2", "k3"]))
        channel = self.draw(st.sampled_from([0, 1, 2]))
        self.waiting.append(self.script.sent(self.draw(st.sampled_from("xy")), ask, key, channel=channel))

    def apply(self) -> None:
        """Let the server apply a call, on its channel the first one that waits; late ones too."""
        lines = [line for line in [*self.waiting, *self.late] if line.call not in self.applied]
        lines = [line for line in lines if not line.channel or first_of_its_channel(line, lines)]
        if lines:
            line = self.draw(st.sampled_from(lines))
            self.applied[line.call] = self.script.apply(line)

    def answer(self) -> None:
        """Answer a call that has been applied."""
        lines = [line for line in self.waiting if line.call in self.applied]
        if lines:
            line = self.draw(st.sampled_from(lines))
            self.waiting.remove(line)
            self.script.answered(line, self.applied[line.call])

    def lose(self) -> None:
        """Lose a call or its answer."""
        if self.waiting:
            line = self.draw(st.sampled_from(self.waiting))
            self.waiting.remove(line)
            self.late.append(line)
            self.script.lost(line)


def first_of_its_channel(line: Sent, others: list[Sent]) -> bool:
    """Whether no earlier call of the same channel and session waits."""
    same = [other.call for other in others if (other.channel, other.session) == (line.channel, line.session)]
    return line.call == min(same)


def asks(files: list[str]) -> st.SearchStrategy[Ask]:
    """What a client may ask."""
    items = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3).map(tuple)
    expected = st.sampled_from([None, None, 0, 1, 2, 3])
    events = st.builds(
        Ask, st.just("advance"), items, st.just(3), expected, st.just(()), st.integers(0, 5).map((0).__eq__)
    )
    others = st.sampled_from([Ask("inspect"), Ask("predictions", top_k=3), Ask("save"), Ask("delete")])
    sequences = st.builds(
        Ask, st.just("infer"), items, st.just(3), end=st.integers(0, 5).map((0).__eq__), start=st.booleans()
    )
    stateless = st.builds(Ask, st.just("predict"), items, st.just(3))
    moves = [st.builds(lambda file: Ask("restore", file=file), st.sampled_from(files))] if files else []
    return st.one_of(events, events, others, sequences, stateless, *moves)


SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=100)


@SETTINGS
@given(st.data())
def test_a_legal_history_is_found_right(replay: Replay, data: st.DataObject) -> None:
    """Whatever overlaps, is lost, comes late or is repeated, a right server is never accused."""
    clients = Clients(replay, data.draw)
    actions = [clients.send, clients.apply, clients.answer, clients.send, clients.apply, clients.answer, clients.lose]
    for _ in range(data.draw(st.integers(1, 40))):
        data.draw(st.sampled_from(actions))()
    verdicts = check(replay, clients.script.calls())
    assert not verdicts, "\n".join(map(str, verdicts))


@SETTINGS
@given(st.data())
def test_any_answer_with_another_step_or_number_is_found(replay: Replay, data: st.DataObject) -> None:
    """In a history without unknown outcomes, no answer can be changed in its step or its numbers."""
    script = Script(replay)
    for _ in range(data.draw(st.integers(1, 12))):
        script.call(
            data.draw(st.sampled_from("xy")), data.draw(asks([])), data.draw(st.sampled_from([None, "k1", "k2"]))
        )
    answers = [line for line in script.lines if isinstance(line, Outcome) and '"state":' in line.body]
    if not answers:
        return
    line = data.draw(st.sampled_from(answers))
    content = msgspec.json.decode(line.body)
    change: dict[str, Any] = {"step": content["step"] + data.draw(st.sampled_from([-1, 1]))}
    if data.draw(st.booleans()):
        change = {"predictions": content["predictions"][::-1]}
    script.lines[script.lines.index(line)] = msgspec.structs.replace(line, body=altered(line.body, **change))
    assert check(replay, script.calls())


GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["item", "probability", "rank", "step", "code"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@SETTINGS
@given(st.data())
def test_whatever_stands_in_an_answer_gets_a_verdict(replay: Replay, data: st.DataObject) -> None:
    """An answer of any form is judged, and never ends the checker."""
    script = Script(replay)
    for name in ("x", "x", "y", "x"):
        script.event(name, "a", "b")
    script.call("x", data.draw(st.sampled_from([Ask("inspect"), Ask("predictions", top_k=3), Ask("save")])))
    line = data.draw(st.sampled_from([line for line in script.lines if isinstance(line, Outcome)]))
    body = msgspec.json.encode(data.draw(GARBAGE)).decode()
    if line.body.startswith("{") and data.draw(st.booleans()):
        field = data.draw(st.sampled_from(sorted(msgspec.json.decode(line.body))))
        body = altered(line.body, **{field: data.draw(GARBAGE)})
    status = data.draw(st.sampled_from([200, 409]))
    known = "ok" if status == 200 else "refused"
    changed = msgspec.structs.replace(line, body=body, status=status, outcome=known)
    script.lines[script.lines.index(line)] = changed
    verdicts = check(replay, script.calls())
    assert verdicts or known == "refused" or msgspec.json.decode(line.body) == msgspec.json.decode(body)
