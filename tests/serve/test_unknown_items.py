"""Items in another type than the label, and items that the model has no label for: what each route makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from websockets.asyncio.client import connect

from arraylstm_serve.api.schemas import Item

from .answers import check
from .bundles import LABELS, write_bundle
from .harness import Harness, listening

pytestmark = pytest.mark.anyio

DIGITS: list[Item] = ["<unk>", "5", "6", "7", 8, 9, "9"]
"""A vocabulary as `arraylstm-train --min-count 2` makes it of digits, and three integers; 9 and "9" are two items."""


@pytest.fixture
def digits(tmp_path: Path) -> Harness:
    """A server whose labels are digits and which has an unknown item."""
    return Harness(write_bundle(tmp_path / "digits", labels=DIGITS, unknown="<unk>"))


def scores(answer: dict[str, Any]) -> tuple[Any, Any]:
    """What an answer says of the model's view, without the labels as they were sent."""
    return answer["predictions"], [(each["probability"], each["rank"]) for each in answer["observed"]]


def unknown(answer: dict[str, Any]) -> list[Any]:
    """The items that an answer says were unknown."""
    return [each["item"] for each in answer["observed"] if each.get("unknown")]


TWINS: list[tuple[list[Any], list[Any]]] = [
    ([5, 6], ["5", "6"]),
    (["8", 7], [8, "7"]),
    (["9", 9, 5], ["9", 9, "5"]),
]


@pytest.mark.parametrize(("sent", "meant"), TWINS)
async def test_an_event_with_the_other_type_means_the_label(digits: Harness, sent: list[Any], meant: list[Any]) -> None:
    """Integers and their digits get the same answers in events, in bulk, in a stateless request and in a stream."""
    client = digits.client
    expected = scores((await digits.send("expected", *meant)).json())
    one = (await digits.send("one", *sent)).json()
    bulk = (await client.post("/v1/events", json={"events": [{"session_id": "bulk", "items": sent}]})).json()
    alone = (await client.post("/v1/predict", json={"items": sent})).json()
    async with listening(digits) as address, connect(f"ws://{address}/v1/stream") as stream:
        await stream.send(json.dumps({"session_id": "stream", "items": sent}))
        told = json.loads(await stream.recv())
    for answer in (one, bulk["results"][0], alone, told):
        assert scores(answer) == expected
        assert unknown(answer) == []
        assert [each["item"] for each in answer["observed"]] == sent
    recent = (await client.get("/v1/sessions/one")).json()["recent"]
    assert recent == meant


@pytest.mark.parametrize(("sent", "meant"), TWINS)
async def test_what_is_excluded_may_have_the_other_type(digits: Harness, sent: list[Any], meant: list[Any]) -> None:
    """The labels that read like the excluded items are left out."""
    answer = (await digits.send("u", "7", exclude=sent)).json()
    assert {entry["item"] for entry in answer["predictions"]} == set(DIGITS) - set(meant) - {"<unk>"}


async def infer(harness: Harness, kind: str, data: list[Any], **parameters: Any) -> dict[str, Any]:
    """The answer to an inference."""
    items = {"name": "items", "datatype": kind, "shape": [len(data)], "data": data}
    asked = {"inputs": [items], "parameters": parameters}
    answer: dict[str, Any] = (await harness.client.post("/v2/models/arraylstm/infer", json=asked)).json()
    return answer


async def test_inferences_mean_the_same_labels(digits: Harness) -> None:
    """BYTES are labels or read like them, INT64 are ids; an answer tells how many items were unknown."""
    by_label = await infer(digits, "BYTES", ["5", "8", "9"])
    assert by_label == await infer(digits, "INT64", [DIGITS.index("5"), DIGITS.index(8), DIGITS.index("9")])
    assert "parameters" not in by_label
    unlisted = await infer(digits, "BYTES", ["zebra", "5", "10", "<unk>"])
    assert unlisted["parameters"] == {"unknown_items": 2}


async def test_every_answer_tells_which_items_were_unknown(digits: Harness) -> None:
    """Items that the model has no label for are marked, and counted once, whatever the route and however long."""
    sent = ["5", "zebra", 10, "<unk>", "05"]
    one = (await digits.send("one", *sent)).json()
    alone = (await digits.client.post("/v1/predict", json={"items": sent})).json()
    long = (await digits.send("long", *sent * 20)).json()
    assert unknown(one) == unknown(alone) == ["zebra", 10, "05"]
    assert unknown(long) == ["zebra", 10, "05"] * 20
    assert list(one["observed"][0]) == ["item", "probability", "rank"]
    assert one["observed"][1]["unknown"] is True
    metrics = (await digits.client.get("/metrics")).text
    assert "\narraylstm_unknown_items_total 66.0\n" in metrics


async def test_a_repeated_request_does_not_count_its_items_again(digits: Harness) -> None:
    """The first answer, sent again, still tells of unknown items, and the metric stays."""
    first = await digits.send("u", "zebra", key="k")
    again = await digits.send("u", "zebra", key="k")
    assert again.content == first.content
    assert unknown(again.json()) == ["zebra"]
    assert digits.service.counters.unknown_items == 1


async def test_refused_items_are_not_counted_as_unknown(tmp_path: Path) -> None:
    """Under --unknown-items reject nothing is taken for the unknown item; labels of the other type are still meant."""
    path = write_bundle(tmp_path / "digits", labels=DIGITS, unknown="<unk>")
    harness = Harness(path, unknown_items="reject")
    check(await harness.send("u", 5, "zebra"), "unknown_item")
    assert (await harness.send("u", 5)).status_code == 200
    assert harness.service.counters.unknown_items == 0


async def test_a_session_keeps_the_labels_that_were_sent(digits: Harness) -> None:
    """A session's last items are the labels as sent also where the model lacks them; of long ones it keeps few."""
    await digits.send("u", "zebra", 5, 10)
    await digits.send("u", "6")
    recent = (await digits.client.get("/v1/sessions/u")).json()["recent"]
    assert recent == ["zebra", "5", 10, "6"]
    await digits.send("u", "z" * 3000, "y" * 3000, "10")
    recent = (await digits.client.get("/v1/sessions/u")).json()["recent"]
    assert recent == ["zebra", "5", 10, "6", "<unk>", "y" * 3000, "10"]


async def test_a_state_file_has_the_unknown_items_id(digits: Harness) -> None:
    """A state file stores ids, so a restored session has the unknown item where the model lacks the label."""
    await digits.send("u", "zebra", 5, 8)
    file = (await digits.client.get("/v1/sessions/u/state")).content
    ids = [DIGITS.index("<unk>"), DIGITS.index("5"), DIGITS.index(8)]
    assert safetensors.numpy.load(file)["recent"].tolist() == ids
    restored = await digits.client.put("/v1/sessions/v/state", content=file)
    assert restored.json()["recent"] == ["<unk>", "5", 8]


UNKNOWN_FIRST: list[Item] = ["<unk>", "b", "c", "d", "e", "f", "g"]
UNKNOWN_LAST: list[Item] = [1, 2, 3, 4, 5, 6, 0]


@pytest.mark.host_only("the device's ranks count the unknown item")
@pytest.mark.parametrize(("labels", "name"), [(UNKNOWN_FIRST, "<unk>"), (UNKNOWN_LAST, 0), (DIGITS, 8)])
async def test_the_unknown_item_is_never_predicted_and_takes_no_place(
    tmp_path: Path, labels: list[Item], name: Item
) -> None:
    """Whatever the route and the depth, known items are predicted; an item's rank is its place among these."""
    harness = Harness(write_bundle(tmp_path / "unknown", labels=labels, unknown=name))
    known = [label for label in labels if label != name]
    before: list[Item] = []
    for step, item in enumerate([*known, "zebra", name, *reversed(known)]):
        answer = (await harness.send("u", item, top_k=step % 9)).json()
        alone = (await harness.client.post("/v1/predict", json={"items": [item], "top_k": 99})).json()
        peeked = (await harness.client.get("/v1/sessions/u/predictions?top_k=99")).json()
        for each in (answer, alone, peeked):
            assert name not in [entry["item"] for entry in each["predictions"]]
        assert len(answer["predictions"]) == min(step % 9, 6)
        assert len(alone["predictions"]) == len(peeked["predictions"]) == 6
        if before:
            rank = answer["observed"][0]["rank"]
            assert rank == (1 + before.index(item) if item in known else len(labels))
        before = [entry["item"] for entry in peeked["predictions"]]


async def test_an_inference_never_predicts_the_unknown_item(digits: Harness) -> None:
    """Predictions of /v2 are known items, whatever is excluded or asked for."""
    asked = {"outputs": [{"name": "predictions"}, {"name": "probabilities"}]}
    items = {"name": "items", "datatype": "BYTES", "shape": [2], "data": ["zebra", "5"]}
    body = {"inputs": [items], "parameters": {"top_k": 50}, **asked}
    answer = (await digits.client.post("/v2/models/arraylstm/infer", json=body)).json()
    labels, probabilities = (output["data"] for output in answer["outputs"])
    assert sorted(labels) == sorted(str(label) for label in DIGITS if label != "<unk>")
    assert len(probabilities) == 6


async def test_an_unknown_item_is_not_predicted_where_it_is_refused(tmp_path: Path) -> None:
    """--unknown-items says what may be sent; it makes nothing of the unknown item."""
    for policy in ("reject", "skip"):
        harness = Harness(write_bundle(tmp_path / policy, labels=DIGITS, unknown="<unk>"), unknown_items=policy)
        answer = (await harness.send("u", "5", exclude=["6", 9])).json()
        assert {entry["item"] for entry in answer["predictions"]} == {"5", "7", 8, "9"}


@pytest.fixture(params=[None, "<unk>"])
def skipping(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """A server that leaves items without a label out, over a model with and without an unknown item."""
    return Harness(write_bundle(tmp_path / "skip", labels=DIGITS, unknown=request.param), unknown_items="skip")


async def test_a_skipped_item_is_as_if_it_had_not_been_sent(skipping: Harness) -> None:
    """Steps, predictions and what was expected of the others are those of the known items alone."""
    plain = (await skipping.send("plain", "5", "6", "7")).json()
    mixed = (await skipping.send("mixed", "zebra", "5", 10, "6", "05", "7", "x")).json()
    alone = (await skipping.client.post("/v1/predict", json={"items": ["5", "no", "6", "7"]})).json()
    assert (mixed["step"], mixed["predictions"]) == (3, plain["predictions"])
    assert alone["predictions"] == plain["predictions"]
    assert [each for each in mixed["observed"] if "unknown" not in each] == plain["observed"]
    assert unknown(mixed) == ["zebra", 10, "05", "x"]
    last = 7 if skipping.service.model.vocabulary.unknown is not None else 8
    told = [(each["probability"], each["rank"]) for each in mixed["observed"] if "unknown" in each]
    assert told == [(None, None), *[(None, last)] * 3]
    assert (await skipping.client.get("/v1/sessions/mixed")).json()["recent"] == ["5", "6", "7"]


async def test_a_request_of_unknown_items_alone_moves_nothing(skipping: Harness) -> None:
    """Its predictions are those that the session had; a session does not begin with it."""
    nothing = (await skipping.send("u", "zebra", 10)).json()
    assert (nothing["step"], nothing["state"], nothing["predictions"]) == (0, "new", [])
    assert nothing["observed"] == [
        {"item": item, "probability": None, "rank": None, "unknown": True} for item in ("zebra", 10)
    ]
    assert (await skipping.client.get("/v1/sessions/u")).status_code == 404
    first = (await skipping.send("u", "5", top_k=3)).json()
    stays = (await skipping.send("u", "zebra", top_k=3, expected_step=1)).json()
    assert (stays["step"], stays["state"]) == (1, "continued")
    assert stays["predictions"] == first["predictions"]
    assert skipping.service.counters.unknown_items == 3
    check(await skipping.send("u", "zebra", expected_step=7), "step_conflict")
    check(await skipping.send("u", "zebra", exclude=["no such"]), "unknown_item")


async def test_a_repeat_of_a_skipped_request_gets_the_first_answer(skipping: Harness) -> None:
    """Also where nothing was consumed and the session has moved since, or had not begun."""
    begun = await skipping.send("new", "zebra", key="k")
    await skipping.send("new", "5")
    assert (await skipping.send("new", "zebra", key="k")).content == begun.content
    stays = await skipping.send("new", "zebra", key="l")
    await skipping.send("new", "6")
    assert (await skipping.send("new", "zebra", key="l")).content == stays.content
    assert (await skipping.client.get("/v1/sessions/new")).json()["step"] == 2


async def test_a_session_may_end_with_a_skipped_item(skipping: Harness) -> None:
    """The end applies although no item is left; so does the beginning that /v2 asks for."""
    await skipping.send("u", "5")
    assert (await skipping.send("u", "zebra", end=True)).json()["step"] == 1
    assert (await skipping.client.get("/v1/sessions/u")).status_code == 404
    await skipping.send("7", "5", "6")
    again = await infer(skipping, "BYTES", ["zebra"], sequence_id=7, sequence_start=True)
    assert (again["outputs"][0]["shape"], again["parameters"]) == ([1, 0], {"unknown_items": 1})
    assert (await skipping.client.get("/v1/sessions/7")).status_code == 404


async def test_digits_are_ids_where_there_are_no_labels(tmp_path: Path) -> None:
    """Without labels a text of digits is that id; another text is refused."""
    harness = Harness(write_bundle(tmp_path / "ids", labels=None))
    by_text, by_id = (await harness.send("u", "0", "6")).json(), (await harness.send("v", 0, 6)).json()
    assert scores(by_text) == scores(by_id)
    check(await harness.send("w", str(len(LABELS))), "unknown_item")
