"""Mistakes with answers: stale reads, deletions, keys, steps, moved states, numbers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ..serve.bundles import FINGERPRINT, LABELS
from .history import Ask, Sent
from .planted import Plants, expect, life, plant, spoil
from .replay import Life, Replay
from .simulated import Script, advance, altered, posing, refusal, saved

PLANTS: Plants = {}


@plant(PLANTS, "stale read")
def predictions_are_those_before_the_last_event(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.call("anna", Ask("predictions", top_k=3))


@plant(PLANTS, "stale read")
def predictions_are_older_than_their_step(script: Script) -> None:
    spoil(script, posing(life(script, *"abc"), 4))
    script.call("anna", Ask("predictions", top_k=3))


@plant(PLANTS, "stale read")
def a_session_is_described_as_it_was(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.call("anna", Ask("inspect"))


@plant(PLANTS, "stale read")
def a_state_is_saved_as_it_was(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.call("anna", Ask("save"))


@plant(PLANTS, "stale read")
def a_read_forgets_an_overlapping_one(script: Script) -> None:
    event, reads = script.sent("anna", advance("e")), [script.sent("anna", Ask("inspect")) for _ in range(2)]
    old = script.apply(reads[0])
    script.answered(event, script.apply(event))
    script.answered(reads[0], script.apply(reads[0]))
    script.answered(reads[1], old)
    script.answered(script.sent("anna", Ask("inspect")), old)


@plant(PLANTS, "delete ignored")
def a_deleted_session_continues(script: Script) -> None:
    before = script.server.sessions["anna"].life
    script.call("anna", Ask("delete"))
    spoil(script, before)
    script.event("anna", "e")


@plant(PLANTS, "delete ignored")
def a_deleted_session_still_answers(script: Script) -> None:
    before = script.server.sessions["anna"].life
    script.call("anna", Ask("delete"))
    spoil(script, before)
    script.call("anna", Ask("predictions", top_k=3))


@plant(PLANTS, "delete ignored")
def an_ended_session_continues(script: Script) -> None:
    script.event("anna", "e", end=True)
    spoil(script, life(script, *"abcde"))
    script.event("anna", "b")


@plant(PLANTS, "key answered differently")
def a_keys_second_answer_is_newer(script: Script) -> None:
    script.event("anna", "e")
    line = script.sent("anna", advance("d"), "kd")
    _, body = script.apply(line)
    script.answered(line, (200, altered(body, step=5)))


@plant(PLANTS, "key answered differently")
def a_keys_second_answer_has_another_byte(script: Script) -> None:
    line = script.sent("anna", advance("d"), "kd")
    script.answered(line, (200, script.apply(line)[1] + " "))


@plant(PLANTS, "key forgotten")
def a_retry_is_refused_as_a_conflict(script: Script) -> None:
    script.event("anna", "e", key="ke", expected_step=4)
    del script.server.sessions["anna"].keys["ke"]
    script.call("anna", advance("e", expected_step=4), "ke")


@plant(PLANTS, "key confused")
def another_request_under_a_key_is_applied(script: Script) -> None:
    del script.server.sessions["anna"].keys["kd"]
    script.event("anna", "e", key="kd")


@plant(PLANTS, "key confused")
def a_new_key_is_refused_as_a_used_one(script: Script) -> None:
    script.answered(script.sent("anna", advance("e"), "new"), refusal("idempotency_key_reused", 422))


@plant(PLANTS, "mixed")
def a_moved_state_stays_bound_to_its_first_session(script: Script) -> None:
    file = script.call("anna", Ask("save"))[1]
    script.call("cora", Ask("restore", file=file))
    script.event("anna", "e")
    script.server.sessions["cora"].life = script.server.sessions["anna"].life
    script.event("cora", "b")


@plant(PLANTS, "lost")
def a_moved_state_is_an_older_one(script: Script) -> None:
    script.call("cora", Ask("restore", file=script.call("anna", Ask("save"))[1]))
    script.event("cora", "e")
    script.event("cora", "a")
    spoil(script, script.server.replay.after(life(script, *"abcd"), ("a",)), "cora")
    script.event("cora", "b")


@plant(PLANTS, "wrong numbers")
def a_moved_state_is_damaged(script: Script) -> None:
    script.call("cora", Ask("restore", file=script.call("anna", Ask("save"))[1]))
    restored = script.server.sessions["cora"].life
    states = {name: np.nextafter(value, np.float32(9)) for name, value in restored.states.items()}
    spoil(script, Life(restored.step, states, restored.logits, restored.recent), "cora")
    script.event("cora", "e")


@plant(PLANTS, "wrong numbers")
def a_saved_state_is_off_by_one_bit(script: Script) -> None:
    current = script.server.sessions["anna"].life
    states = {name: np.nextafter(value, np.float32(9)) for name, value in current.states.items()}
    file = saved(script.server.replay, Life(current.step, states, current.logits, current.recent))
    script.answered(script.sent("anna", Ask("save")), (200, file))


@plant(PLANTS, "wrong state")
def a_restored_session_says_continued(script: Script) -> None:
    script.call("cora", Ask("restore", file=script.call("anna", Ask("save"))[1]))
    script.server.sessions["cora"].restored = False
    script.event("cora", "e")


@plant(PLANTS, "step not checked")
def an_event_is_applied_at_another_step_than_expected(script: Script) -> None:
    line = script.sent("anna", advance("e", expected_step=2))
    script.answered(line, script.apply(Sent(0, "anna", advance("e"))))


@plant(PLANTS, "step not checked")
def an_event_begins_a_session_that_it_expected_to_be_there(script: Script) -> None:
    line = script.sent("cora", advance("e", expected_step=2))
    script.answered(line, script.apply(Sent(0, "cora", advance("e"))))


@plant(PLANTS, "another model")
def another_model_answers(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    status, body = script.apply(line)
    script.answered(line, (status, altered(body, model=FINGERPRINT[::-1])))


@plant(PLANTS, "failed")
def the_server_fails(script: Script) -> None:
    script.answered(script.sent("anna", advance("e")), refusal("internal", 500))


@plant(PLANTS, "wrong numbers")
def a_probability_is_off_by_one_bit(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    status, body = script.apply(line)
    found = msgspec.json.decode(body)["predictions"]
    found[1]["probability"] = float(np.nextafter(found[1]["probability"], 1))
    script.answered(line, (status, altered(body, predictions=found)))


@plant(PLANTS, "wrong numbers")
def a_rank_is_off_by_one(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    status, body = script.apply(line)
    found = msgspec.json.decode(body)["observed"]
    found[0]["rank"] += 1
    script.answered(line, (status, altered(body, observed=found)))


@plant(PLANTS, "wrong numbers")
def excluded_items_are_predicted(script: Script) -> None:
    line = script.sent("anna", advance("e", exclude=tuple(LABELS[:3])))
    script.answered(line, script.apply(Sent(0, "anna", advance("e"))))


@plant(PLANTS, "wrong answer")
def an_answer_is_cut_and_passed_on(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    script.answered(line, (200, script.apply(line)[1][:-9]))


@plant(PLANTS, "wrong items")
def a_session_is_described_with_another_item(script: Script) -> None:
    line = script.sent("anna", Ask("inspect"))
    script.answered(line, (200, altered(script.apply(line)[1], recent=list("abce"))))


@plant(PLANTS, "delete ignored")
def a_conflict_tells_the_step_of_an_ended_session(script: Script) -> None:
    script.event("anna", "e", end=True)
    spoil(script, life(script, *"abcde"))
    script.call("anna", advance("b", expected_step=0))


@plant(PLANTS, "delete ignored")
def a_deleted_session_is_not_gone(script: Script) -> None:
    before = script.server.sessions["anna"].life
    script.call("anna", Ask("delete"))
    spoil(script, before)
    script.call("anna", advance("b", expected_step=7))


@plant(PLANTS, "wrong numbers")
def a_rank_is_wrong_where_another_session_has_the_same_predictions(script: Script) -> None:
    script.event("cora", "a", "b")
    line = script.sent("dora", advance("a", "b"))
    status, body = script.apply(line)
    found = msgspec.json.decode(body)["observed"]
    found[1]["rank"] += 1
    script.answered(line, (status, altered(body, observed=found)))


@plant(PLANTS, "delete ignored")
def a_deleted_session_answers_with_something(script: Script) -> None:
    script.call("anna", Ask("delete"))
    line = script.sent("anna", Ask("predictions", top_k=3))
    script.answered(line, script.apply(Sent(0, "bert", Ask("predictions", top_k=2))))


@pytest.mark.parametrize("name", PLANTS)
def test_a_mistake_with_answers_is_found_and_named(replay: Replay, name: str) -> None:
    """The checker names each mistake, at a call that came after it."""
    expect(replay, *PLANTS[name])
