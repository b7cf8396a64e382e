"""Items in another type than the label, and items that the model has no label for: what each route makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from websockets.asyncio.client import connect

from .answers import check
from .bundles import LABELS, write_bundle
from .harness import Harness, listening

pytestmark = pytest.mark.anyio

DIGITS: list[str | int] = ["<unk>", "5", "6", "7", 8, 9, "9"]
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
    assert {entry["item"] for entry in answer["predictions"]} == set(DIGITS) - set(meant)


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


async def test_digits_are_ids_where_there_are_no_labels(tmp_path: Path) -> None:
    """Without labels a text of digits is that id; another text is refused."""
    harness = Harness(write_bundle(tmp_path / "ids", labels=None))
    by_text, by_id = (await harness.send("u", "0", "6")).json(), (await harness.send("v", 0, 6)).json()
    assert scores(by_text) == scores(by_id)
    check(await harness.send("w", str(len(LABELS))), "unknown_item")
