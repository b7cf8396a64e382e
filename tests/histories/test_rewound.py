"""Sessions that went back, and answers of `/v2` and without a session: the allowed is counted, mistakes are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from .check import check, went_back
from .history import Ask, Sent
from .places import Losses
from .planted import Plants, expect, life, plant, prelude, spoil
from .replay import Replay
from .simulated import Script, Session, advance, altered, refusal

PLANTS: Plants = {}


def rewound(script: Script, step: int, *, of_v2: bool = False) -> None:
    """Let the server refuse an event, as its store has lost steps."""
    said = f"The session store has lost steps: session anna stood at step 4, and stands at step {step} now."
    if of_v2:
        script.answered(script.sent("anna", Ask("infer", ("e",), 3)), (409, f'{{"error":"{said}"}}'))
    else:
        script.answered(script.sent("anna", advance("e")), refusal("session_rewound", 409, step=step))


def told(script: Script) -> None:
    spoil(script, life(script, *"ab"))
    rewound(script, 2)
    script.event("anna", "e")


def told_by_v2(script: Script) -> None:
    spoil(script, life(script, *"ab"))
    rewound(script, 2, of_v2=True)
    script.call("anna", Ask("infer", ("e",), 3))


def told_of_all(script: Script) -> None:
    script.server.sessions.pop("anna")
    rewound(script, 0)
    assert script.event("anna", "e")["state"] == "new"


def told_late(script: Script) -> None:
    script.at += 1
    spoil(script, life(script, *"abc"))
    script.event("anna", "e")
    script.at -= 1
    rewound(script, 4)


def untold(script: Script) -> None:
    script.at += 1
    spoil(script, life(script, *"ab"))
    script.event("anna", "e")


def untold_by_a_state(script: Script) -> None:
    script.at += 1
    spoil(script, life(script, *"abc"))
    script.call("anna", Ask("save"))


def untold_of_all(script: Script) -> None:
    script.at += 1
    script.server.sessions.pop("anna")
    script.event("anna", "e")


def untold_by_a_look(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.call("anna", Ask("inspect"))


def untold_by_a_conflict(script: Script) -> None:
    script.at += 1
    spoil(script, life(script, *"abc"))
    script.call("anna", advance("e", expected_step=4))


def untold_of_a_key(script: Script) -> None:
    before = script.server.sessions["anna"].life
    script.event("anna", "a")
    script.event("anna", "e", key="k")
    script.call("anna", Ask("restore", file=script.call("bert", Ask("save"))[1]))
    script.server.sessions["anna"] = Session(before)
    script.at += 1
    script.event("anna", "e", key="k")


@pytest.mark.parametrize(
    ("loss", "counted"),
    [
        (told, Losses(1, 0, 2)),
        (told_by_v2, Losses(1, 0, 2)),
        (told_of_all, Losses(1, 0, 4)),
        (told_late, Losses(0, 1, 1)),
        (untold, Losses(0, 1, 2)),
        (untold_of_all, Losses(0, 1, 4)),
        (untold_by_a_state, Losses(0, 1, 1)),
        (untold_by_a_look, Losses(0, 1, 1)),
        (untold_by_a_conflict, Losses(0, 1, 1)),
        (untold_of_a_key, Losses(0, 1, 0)),
    ],
)
def test_a_session_that_went_back_is_counted(replay: Replay, loss: Callable[[Script], object], counted: Losses) -> None:
    """Each loss is a fault of its own where stores lose nothing, and is counted once where they may."""
    script = Script(replay)
    prelude(script)
    loss(script)
    (verdict,) = check(replay, script.calls())
    assert verdict.kind in ("rewound", "lost", "lost session", "stale read", "key answered differently")
    losses: dict[str, Losses] = {}
    assert not check(replay, script.calls(), losses=losses)
    assert losses == {"anna": counted}
    assert f"1 sessions went back, by {counted.steps} steps in all: {counted.told} times" in went_back(losses)


@pytest.mark.parametrize("loss", [untold, untold_of_all, untold_by_a_state, untold_by_a_conflict, told_late])
def test_a_server_says_that_steps_are_lost_which_it_had_answered(
    replay: Replay, loss: Callable[[Script], object]
) -> None:
    """One that goes on without a word is a fault, unless it may have been started anew."""
    script = Script(replay)
    script.at = 1
    prelude(script)
    script.at = 0  # a loss goes on at the next server, which is the one before
    loss(script)
    (verdict,) = check(replay, script.calls(), losses={})
    assert verdict.kind == "untold"
    assert not check(replay, script.calls(), losses={}, silent=True)


@pytest.mark.parametrize(
    "read", [Ask("inspect"), Ask("predictions", top_k=3), Ask("save"), advance("a", expected_step=9)]
)
@pytest.mark.parametrize("rewound_before", [False, True])
def test_calls_that_overlap_are_no_loss(replay: Replay, read: Ask, rewound_before: bool) -> None:
    """A read before an event that was answered first is another order; it is no loss, nor one more."""
    script = Script(replay)
    prelude(script)
    if rewound_before:
        told(script)
    event, early = script.sent("anna", advance("e", "b")), script.sent("anna", read)
    answer = script.apply(early)
    script.answered(event, script.apply(event))
    script.answered(early, answer)
    losses: dict[str, Losses] = {}
    assert not check(replay, script.calls(), losses=losses)
    assert losses == ({"anna": Losses(1, 0, 2)} if rewound_before else {})


def doubled(script: Script) -> None:
    script.apply(Sent(0, "anna", advance("e")))
    script.event("anna", "e")


def mixed(script: Script) -> None:
    script.answered(script.sent("anna", Ask("predictions", top_k=3)), script.apply(Sent(0, "bert", Ask("inspect"))))


def another_way(script: Script) -> None:
    spoil(script, life(script, *"ac"))
    script.event("anna", "e")


def told_another_step(script: Script) -> None:
    spoil(script, life(script, *"ab"))
    rewound(script, 3)
    script.event("anna", "e")
    rewound(script, 7)


@pytest.mark.parametrize("mistake", [doubled, mixed, another_way, told_another_step])
def test_a_store_that_may_lose_steps_excuses_nothing_else(replay: Replay, mistake: Callable[[Script], object]) -> None:
    """Events applied twice, other sessions' answers, other items and steps that never were are found all the same."""
    script = Script(replay)
    prelude(script)
    mistake(script)
    assert check(replay, script.calls(), losses={})


def infer(script: Script, change: Callable[[dict[str, Any]], object]) -> None:
    """Answer a request of /v2 with something changed."""
    line = script.sent("anna", Ask("infer", ("e",), 3))
    status, body = script.apply(line)
    content = msgspec.json.decode(body)
    change({output["name"]: output["data"] for output in content["outputs"]})
    script.answered(line, (status, msgspec.json.encode(content).decode()))


@plant(PLANTS, "wrong numbers")
def logits_of_v2_are_others(script: Script) -> None:
    infer(script, lambda outputs: outputs["logits"].reverse())


@plant(PLANTS, "wrong numbers")
def probabilities_of_v2_are_others(script: Script) -> None:
    infer(script, lambda outputs: outputs["probabilities"].reverse())


@plant(PLANTS, "wrong numbers")
def predictions_of_v2_are_others(script: Script) -> None:
    infer(script, lambda outputs: outputs["predictions"].reverse())


@plant(PLANTS, "lost")
def a_sequence_has_lost_an_event(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.call("anna", Ask("infer", ("e",), 3))


@plant(PLANTS, "doubled")
def a_sequence_has_an_event_twice(script: Script) -> None:
    script.apply(Sent(0, "anna", Ask("infer", ("e",), 3)))
    script.call("anna", Ask("infer", ("e",), 3))


@plant(PLANTS, "doubled")
def a_start_is_ignored(script: Script) -> None:
    line = script.sent("anna", Ask("infer", ("e",), 3, start=True))
    script.answered(line, script.apply(Sent(0, "anna", Ask("infer", ("e",), 3))))


@plant(PLANTS, "lost session")
def a_sequence_is_gone(script: Script) -> None:
    script.server.sessions.pop("anna")
    script.call("anna", Ask("infer", ("e",), 3))


@plant(PLANTS, "failed")
def v2_fails(script: Script) -> None:
    script.answered(script.sent("anna", Ask("infer", ("e",), 3)), (500, '{"error":"the server failed"}'))


@plant(PLANTS, "wrong numbers")
def a_prediction_without_a_session_has_one(script: Script) -> None:
    line = script.sent("nobody", Ask("predict", ("e",), 3))
    script.answered(line, script.server.predict("anna", script.server.sessions["anna"], Ask("predict", ("a", "e"), 3)))


@plant(PLANTS, "another model")
def a_prediction_without_a_session_is_by_another_model(script: Script) -> None:
    line = script.sent("nobody", Ask("predict", ("e",), 3))
    status, body = script.apply(line)
    script.answered(line, (status, altered(body, model="sha256:f")))


@pytest.mark.parametrize("name", PLANTS)
def test_a_mistake_without_a_session_or_by_v2_is_found(replay: Replay, name: str) -> None:
    """The answers of `/v2` and `/v1/predict` are judged as the others are."""
    expect(replay, *PLANTS[name])
