"""Telling sessions their events, and looking at them, over HTTP in process."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from ..devices import same_bits
from ..waiting import until_soon
from .answers import near
from .bundles import FINGERPRINT, LABELS, expected_observed, expected_predictions, write_bundle
from .harness import Harness, observed, predictions

pytestmark = pytest.mark.anyio


async def test_an_answer_has_exactly_the_promised_fields(harness: Harness) -> None:
    """An event's answer names session, step, state and model, predicts, and tells what had been thought."""
    response = await harness.send("u", "a", "b", top_k=2)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert list(answer) == ["session_id", "step", "state", "model", "predictions", "observed"]
    assert (answer["session_id"], answer["step"], answer["state"]) == ("u", 2, "new")
    assert answer["model"] == FINGERPRINT
    assert [list(entry) for entry in answer["predictions"]] == [["item", "probability"]] * 2
    assert [list(entry) for entry in answer["observed"]] == [["item", "probability", "rank"]] * 2
    assert answer["observed"][0] == {"item": "a", "probability": None, "rank": None}


async def test_answers_are_those_of_the_model(harness: Harness) -> None:
    """However a history is cut into requests, each answer is the float64 model's on the items so far."""
    history: list[Any] = []
    for chunk in (["a"], ["b", 5], ["5", "e", "c"], ["d"]):
        history += chunk
        answer = (await harness.send("u", *chunk)).json()
        assert predictions(answer) == near(expected_predictions(history))
        assert observed(answer) == near(expected_observed(history, len(chunk)))
        assert [entry["item"] for entry in answer["observed"]] == chunk
        assert (answer["step"], answer["state"]) == (
            len(history),
            "new" if len(history) == 1 else "continued",
        )


@pytest.mark.parametrize(("top_k", "count"), [(0, 0), (1, 1), (7, 7), (10**9, 7)])
async def test_top_k_is_clipped_to_the_items_there_are(harness: Harness, top_k: int, count: int) -> None:
    """As many predictions as asked for are answered, as far as the model has items."""
    assert len((await harness.send("u", "a", top_k=top_k)).json()["predictions"]) == count


async def test_excluded_items_are_left_out_and_nothing_else_changes(harness: Harness) -> None:
    """Excluding items drops them and keeps the others' order and probabilities."""
    everything = predictions((await harness.send("all", "a", "b")).json())
    some = predictions((await harness.send("some", "a", "b", exclude=["5", "c", "c"], top_k=3)).json())
    assert some == [pair for pair in everything if pair[0] not in ("5", "c")][:3]


async def test_peeking_answers_the_last_predictions_and_moves_nothing(harness: Harness) -> None:
    """A look repeats the last answer's predictions, at the same step, as often as it is taken."""
    answer = (await harness.send("u", "a", "b")).json()
    for _ in range(2):
        peeked = (await harness.client.get("/v1/sessions/u/predictions")).json()
        assert peeked == answer | {"state": "continued", "observed": []}
    few = (await harness.client.get("/v1/sessions/u/predictions?top_k=1")).json()
    assert few["predictions"] == answer["predictions"][:1]


async def test_predicting_without_a_session_equals_a_session(harness: Harness) -> None:
    """A history posted to /v1/predict gets a session's numbers and leaves no session behind."""
    answer = (await harness.send("u", "a", "b", "c", exclude=["a"])).json()
    body = {"items": ["a", "b", "c"], "exclude": ["a"]}
    response = await harness.client.post("/v1/predict", json=body)
    assert response.json() == {name: answer[name] for name in ("model", "predictions", "observed")}
    assert len(harness.service.sessions) == 1


async def test_a_deleted_session_begins_again(harness: Harness) -> None:
    """After DELETE a session is unknown, and its next event starts from the initial state."""
    first = (await harness.send("u", "a")).json()
    assert (await harness.client.delete("/v1/sessions/u")).status_code == 204
    assert (await harness.client.get("/v1/sessions/u")).status_code == 404
    assert (await harness.send("u", "a")).json() == first


async def test_inspecting_tells_step_and_times(harness: Harness) -> None:
    """A session's information has its step, its times, and when it will expire."""
    await harness.send("u", "a")
    harness.clock.now += 60
    await harness.send("u", "b")
    assert (await harness.client.get("/v1/sessions/u")).json() == {
        "session_id": "u",
        "step": 2,
        "model": FINGERPRINT,
        "created_at": "2023-11-14T22:13:20Z",
        "last_used_at": "2023-11-14T22:14:20Z",
        "expires_at": "2023-11-14T22:44:20Z",
        "recent": ["a", "b"],
    }


async def test_unlisted_items_are_the_unknown_item_where_there_is_one(tmp_path: Path) -> None:
    """With an unknown item, an unlisted one is answered as it, under the name that was sent."""
    harness = Harness(write_bundle(tmp_path / "bundle", unknown="e"))
    known = (await harness.send("u", "a", "e")).json()
    unlisted = (await harness.send("v", "a", "zebra")).json()
    assert unlisted["predictions"] == known["predictions"]
    assert unlisted["observed"][1] == known["observed"][1] | {"item": "zebra", "unknown": True}


async def test_bundles_without_labels_speak_ids(tmp_path: Path) -> None:
    """Without labels, items are integers in requests and in answers."""
    harness = Harness(write_bundle(tmp_path / "bundle", labels=None))
    answer = (await harness.send("u", 0, 6)).json()
    assert [LABELS[entry["item"]] for entry in answer["predictions"]] == [
        item for item, _ in expected_predictions(["a", "5"])
    ]


@same_bits
async def test_sessions_do_not_feel_each_other(bundle_path: Path) -> None:
    """Each session's answers are the same bits whether it runs alone or randomly interleaved with others."""
    chance = random.Random(3)
    scripts = {f"s{number}": [chance.choices(LABELS, k=chance.randint(1, 4)) for _ in range(6)] for number in range(40)}

    async def play(harness: Harness, name: str) -> list[Any]:
        answers = []
        for chunk in scripts[name]:
            answers.append((await harness.send(name, *chunk)).json())
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
        return answers

    together = Harness(bundle_path, max_batch=16)
    mixed = await asyncio.gather(*(play(together, name) for name in scripts))
    alone = Harness(bundle_path)
    assert mixed == [await play(alone, name) for name in scripts]


async def test_one_sessions_concurrent_events_apply_in_order_and_once(harness: Harness) -> None:
    """Requests sent to one session at once are applied one after the other, in the order they came."""
    items = [LABELS[index % len(LABELS)] for index in range(60)]
    responses = await asyncio.gather(*(harness.send("u", item) for item in items))
    assert [response.json()["step"] for response in responses] == list(range(1, 61))
    assert predictions(responses[-1].json()) == near(expected_predictions(items))


async def test_turns_of_every_kind_keep_their_order(harness: Harness) -> None:
    """Looks and removals wait for the events before them, and the events after them wait too."""
    responses = await harness.in_order(
        harness.send("u", *"abcd" * 100),
        harness.client.get("/v1/sessions/u/predictions"),
        harness.client.delete("/v1/sessions/u"),
        harness.client.get("/v1/sessions/u/predictions"),
        harness.send("u", "d"),
    )
    assert [response.status_code for response in responses] == [200, 200, 204, 404, 200]
    assert responses[1].json()["step"] == 400
    assert (responses[4].json()["step"], responses[4].json()["state"]) == (1, "new")


async def test_any_content_type_is_taken(harness: Harness) -> None:
    """A body that is valid JSON is accepted whatever its Content-Type says, or with none."""
    for headers in (
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ):
        url = "/v1/sessions/u/events"
        assert (await harness.client.post(url, content=b'{"items":["a"]}', headers=headers)).status_code == 200
    assert (await harness.client.post("/v1/predict", content=b'{"items":["a"]}')).status_code == 200


async def test_model_is_the_manifest(harness: Harness, bundle_path: Path) -> None:
    """GET /v1/model answers the manifest as the exporter wrote it."""
    assert (await harness.client.get("/v1/model")).content == (bundle_path / "manifest.json").read_bytes()


async def test_readiness_ends_with_draining_and_health_does_not(harness: Harness) -> None:
    """A server on its way out still lives but is no longer ready."""
    assert (await harness.client.get("/readyz")).json() == {"status": "ready"}
    harness.service.draining = True
    assert (await harness.client.get("/readyz")).status_code == 503
    assert (await harness.client.get("/healthz")).json() == {"status": "ok"}


async def test_health_is_answered_during_load(harness: Harness) -> None:
    """Health and readiness answer while long histories are still being walked."""
    load = [asyncio.create_task(harness.send(f"s{n}", *["a"] * 1000)) for n in range(80)]
    await until_soon(lambda: harness.service.pending)
    assert (await harness.client.get("/healthz")).status_code == 200
    assert (await harness.client.get("/readyz")).status_code == 200
    assert not any(task.done() for task in load)
    assert {response.status_code for response in await asyncio.gather(*load)} == {200}
