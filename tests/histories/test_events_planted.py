"""Mistakes with events and sessions: lost, doubled, swapped, mixed, restarted."""

from __future__ import annotations

import pytest

from .history import Ask, Sent
from .planted import Plants, expect, life, plant, spoil
from .replay import Replay
from .simulated import Script, advance, altered, posing, refusal

PLANTS: Plants = {}


@plant(PLANTS, "lost")
def an_acknowledged_event_is_undone(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.event("anna", "e")


@plant(PLANTS, "lost")
def an_acknowledged_event_is_undone_and_the_step_kept(script: Script) -> None:
    spoil(script, posing(life(script, *"acd"), 4))
    script.event("anna", "e")


@plant(PLANTS, "lost")
def a_conflict_tells_of_a_lost_event(script: Script) -> None:
    spoil(script, life(script, *"abc"))
    script.call("anna", advance("e", expected_step=4))


@plant(PLANTS, "lost")
def an_event_is_acknowledged_and_not_applied(script: Script) -> None:
    before = script.server.sessions["anna"].life
    script.event("anna", "e")
    spoil(script, before)
    script.event("anna", "b")


@plant(PLANTS, "doubled")
def an_event_is_applied_twice(script: Script) -> None:
    script.apply(Sent(0, "anna", advance("e")))
    script.event("anna", "e")


@plant(PLANTS, "doubled")
def an_event_is_applied_twice_after_its_answer(script: Script) -> None:
    script.event("anna", "e")
    script.apply(Sent(0, "anna", advance("e")))
    script.event("anna", "b")


@plant(PLANTS, "doubled")
def an_event_is_applied_twice_and_the_step_kept(script: Script) -> None:
    spoil(script, posing(life(script, *"abbcd"), 4))
    script.event("anna", "e")


@plant(PLANTS, "doubled")
def a_retry_under_a_key_is_applied_again(script: Script) -> None:
    line = script.sent("anna", advance("e"), "retried")
    script.apply(line)
    script.lost(line)
    script.server.sessions["anna"].keys.clear()
    script.event("anna", "e", key="retried")
    script.event("anna", "b")


@plant(PLANTS, "doubled")
def an_event_of_unknown_outcome_is_applied_twice(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    script.apply(line)
    script.apply(line)
    script.lost(line)
    script.event("anna", "b")


@plant(PLANTS, "applied though refused")
def a_refused_event_is_applied(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    script.apply(line)
    script.answered(line, refusal("overloaded", 503))
    script.event("anna", "b")


@plant(PLANTS, "doubled")
def a_step_is_skipped(script: Script) -> None:
    spoil(script, posing(life(script, *"abcd"), 5))
    script.event("anna", "e")


@plant(PLANTS, "swapped")
def two_events_are_exchanged(script: Script) -> None:
    spoil(script, life(script, *"acbd"))
    script.event("anna", "e")


@plant(PLANTS, "swapped")
def two_events_of_a_bulk_request_are_exchanged(script: Script) -> None:
    lines = [script.sent("anna", advance(item), via="bulk", channel=7) for item in "ea"]
    answers = [script.apply(line) for line in reversed(lines)]
    for line, answer in zip(lines, reversed(answers), strict=True):
        script.answered(line, answer)


@plant(PLANTS, "swapped")
def two_events_of_a_new_sessions_stream_are_exchanged(script: Script) -> None:
    lines = [script.sent("cora", advance(item), via="stream", channel=7) for item in "ea"]
    answers = [script.apply(line) for line in reversed(lines)]
    for line, answer in zip(lines, reversed(answers), strict=True):
        script.answered(line, answer)


@plant(PLANTS, "swapped")
def a_bulk_event_overtakes_one_that_was_refused_for_now(script: Script) -> None:
    lines = [script.sent("anna", advance(item), via="bulk", channel=7) for item in "ea"]
    script.answered(lines[0], refusal("session_busy", 429))
    script.answered(lines[1], script.apply(lines[1]))


@plant(PLANTS, "doubled")
def two_answers_of_a_stream_are_exchanged(script: Script) -> None:
    lines = [script.sent("anna", advance("e"), via="stream", channel=7) for _ in range(2)]
    answers = [script.apply(line) for line in lines]
    for line, answer in zip(lines, reversed(answers), strict=True):
        script.answered(line, answer)


@plant(PLANTS, "mixed")
def two_sessions_answers_on_a_stream_are_exchanged(script: Script) -> None:
    lines = [script.sent(name, advance("e"), via="stream", channel=7) for name in ("anna", "bert")]
    answers = [script.apply(line) for line in lines]
    for line, answer in zip(lines, reversed(answers), strict=True):
        script.answered(line, answer)


@plant(PLANTS, "mixed")
def an_event_goes_to_another_session(script: Script) -> None:
    script.apply(Sent(0, "anna", advance("e")))
    script.event("bert", "e")
    script.event("anna", "b")


@plant(PLANTS, "mixed")
def another_sessions_predictions_are_answered(script: Script) -> None:
    body = script.event("bert", "e")
    line = script.sent("anna", advance("c"))
    status, mine = script.apply(line)
    script.answered(line, (status, altered(mine, predictions=body["predictions"])))


@plant(PLANTS, "restarted in silence")
def a_session_begins_again_and_says_continued(script: Script) -> None:
    line = script.sent("anna", advance("e"))
    spoil(script, script.server.replay.fresh)
    status, body = script.apply(line)
    script.answered(line, (status, altered(body, state="continued")))


@plant(PLANTS, "restarted in silence")
def a_session_begins_again_and_keeps_its_step(script: Script) -> None:
    spoil(script, posing(script.server.replay.fresh, 4))
    script.event("anna", "e", "b")


@plant(PLANTS, "lost session")
def a_session_begins_again_and_says_new(script: Script) -> None:
    del script.server.sessions["anna"]
    script.event("anna", "e")


@plant(PLANTS, "lost session")
def a_session_is_not_there_any_more(script: Script) -> None:
    del script.server.sessions["anna"]
    script.call("anna", Ask("inspect"))


@plant(PLANTS, "lost session")
def a_session_is_gone(script: Script) -> None:
    del script.server.sessions["anna"]
    script.call("anna", advance("e", expected_step=4))


@plant(PLANTS, "lost session")
def a_session_is_gone_where_a_conflict_was_due(script: Script) -> None:
    del script.server.sessions["anna"]
    script.call("anna", advance("e", expected_step=7))


@pytest.mark.parametrize("name", PLANTS)
def test_a_mistake_with_events_is_found_and_named(replay: Replay, name: str) -> None:
    """The checker names each mistake, at a call that came after it."""
    expect(replay, *PLANTS[name])
