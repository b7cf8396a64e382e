"""Sequences under /v2, sent by Triton's own client: they get the model's answers, and are the sessions of /v1."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from ..servers import ServerProcess
from .bundles import V, expected_predictions, index_of, probabilities, write_bundle
from .harness import Harness
from .inference import START_MISSING, Refused, item, labels, logits, near, send, triton, wanted
from .inference import client as client
from .inference import server as server


@pytest.mark.parametrize("sequence", [42, 2**64 - 1, "e333c95a-07fc-42d2-ab16-033b1a566ed5"])
@pytest.mark.parametrize("binary", [True, False])
def test_a_whole_sequence_gives_the_models_logits(client: Any, sequence: int | str, binary: bool) -> None:
    """Started, continued and ended by Triton's client, a sequence scores as the reference; then it is not held."""
    ids = [0, 3, 3, 6, 1]
    outputs = None if binary else wanted("logits", binary=False)
    for place in range(len(ids)):
        result = client.infer(
            "arraylstm",
            item(ids[place], binary=binary),
            outputs=outputs,
            model_version="1",
            request_id=f"r{place}",
            sequence_id=sequence,
            sequence_start=place == 0,
            sequence_end=place == len(ids) - 1,
        )
        near(result.as_numpy("logits"), *ids[: place + 1])
        answer = result.get_response()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("arraylstm", "1", f"r{place}")
        assert [output["name"] for output in answer["outputs"]] == ["logits"]
    with pytest.raises(Refused, match=START_MISSING.format(sequence)) as refusal:
        client.infer("arraylstm", item(0), sequence_id=sequence)
    assert refusal.value.status() == "400"


def test_interleaved_sequences_do_not_touch_each_other(client: Any) -> None:
    """Two sequences in turn, one by number and one by name, each score as if it were alone."""
    histories: dict[int | str, list[int]] = {7: [], "seven": []}
    for place in range(8):
        for sequence, history in histories.items():
            history.append((place * 3 + len(str(sequence))) % V)
            result = client.infer("arraylstm", item(history[-1]), sequence_id=sequence, sequence_start=place == 0)
            near(result.as_numpy("logits"), *history)


def test_requests_in_flight_at_once_keep_their_sequences_apart(server: ServerProcess) -> None:
    """Twelve sequences sent at once over many connections, step by step, each score as if alone."""
    histories = [[number % V, (number * 5 + 1) % V, 2, number % 3] for number in range(12)]
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=12) as client:
        for place in range(4):
            sent = [
                client.async_infer(
                    "arraylstm", item(ids[place]), sequence_id=f"wide-{number}", sequence_start=not place
                )
                for number, ids in enumerate(histories)
            ]
            for ids, pending in zip(histories, sent, strict=True):
                near(pending.get_result().as_numpy("logits"), *ids[: place + 1])


def test_a_start_begins_a_held_sequence_anew(client: Any) -> None:
    """What was held under the id does not show in the answers after a start, of one item or of several."""
    client.infer("arraylstm", item(1, 2, 3, shape=(1, 3)), sequence_id=77, sequence_start=True)
    again = client.infer("arraylstm", item(4), sequence_id=77, sequence_start=True)
    near(again.as_numpy("logits"), 4)
    near(client.infer("arraylstm", item(5), sequence_id=77).as_numpy("logits"), 4, 5)
    again = client.infer("arraylstm", item(6, 0, shape=(1, 2)), sequence_id=77, sequence_start=True)
    near(again.as_numpy("logits"), 6, 0)
    near(client.infer("arraylstm", item(5), sequence_id=77).as_numpy("logits"), 6, 0, 5)


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
@pytest.mark.parametrize("binary", [True, False])
def test_several_items_are_consumed_in_order(client: Any, shape: tuple[int, ...], binary: bool) -> None:
    """One request's items are one after the other, and the logits are those after the last."""
    result = client.infer(
        "arraylstm", item(3, 1, 4, 1, shape=shape, binary=binary), sequence_id="many", sequence_start=True
    )
    near(result.as_numpy("logits"), 3, 1, 4, 1)


def test_without_a_sequence_nothing_is_kept(client: Any, server: ServerProcess) -> None:
    """Requests of no sequence start from nothing each, and no session comes of them."""
    before = httpx.get(f"{server.url}/v1/stats").json()["sessions"]
    for _ in range(2):
        near(client.infer("arraylstm", item(2, 5, shape=(1, 2))).as_numpy("logits"), 2, 5)
    assert httpx.get(f"{server.url}/v1/stats").json()["sessions"] == before


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_of_our_own_come_when_named(client: Any, binary: bool) -> None:
    """Predictions with probabilities and the step come beside the logits, in the order asked for."""
    names = ("step", "predictions", "logits", "probabilities")
    result = client.infer(
        "arraylstm",
        labels("b", "e", binary=binary),
        outputs=wanted(*names, binary=binary),
        sequence_id="extras",
        sequence_start=True,
        parameters={"top_k": 3},
    )
    assert [output["name"] for output in result.get_response()["outputs"]] == list(names)
    expected = expected_predictions(["b", "e"], 3)
    texts = [text.decode() if binary else text for text in result.as_numpy("predictions")[0]]
    assert texts == [str(label) for label, _ in expected]
    np.testing.assert_allclose(result.as_numpy("probabilities")[0], [chance for _, chance in expected], atol=1e-6)
    assert result.as_numpy("probabilities").dtype == np.float32
    assert result.as_numpy("step").tolist() == [[2]]
    near(result.as_numpy("logits"), 1, 4)


def test_a_mixture_of_binary_and_json_outputs_is_told_apart(client: Any) -> None:
    """Each output comes the way it was asked for."""
    outputs = [*wanted("step", "probabilities", binary=False), *wanted("logits", "predictions")]
    result = client.infer("arraylstm", item(2), outputs=outputs)
    assert result.as_numpy("step").tolist() == [[1]]
    np.testing.assert_allclose(
        np.sort(result.as_numpy("probabilities")[0]), np.sort(probabilities(["c"])[0]), atol=1e-6
    )
    assert result.as_numpy("predictions").shape == (1, V)
    near(result.as_numpy("logits"), 2)


@pytest.mark.parametrize(("text", "label"), [("c", "c"), ("5", "5")])
def test_labels_are_texts_and_the_text_is_meant_first(client: Any, text: str, label: str | int) -> None:
    """A BYTES item is a label; "5" is the label of that text where there is one beside the integer 5."""
    near(client.infer("arraylstm", labels(text)).as_numpy("logits"), index_of(label))


def test_a_text_spells_an_integer_label_that_is_alone(tmp_path: Path) -> None:
    """Where labels are integers a BYTES item spells one, INT64 stays the id, and predictions come as their digits."""
    numbers: list[str | int] = [1001, 1002, 1003, -4, 5, 6, "seven"]
    process = ServerProcess(write_bundle(tmp_path / "numbers", labels=numbers))
    try:
        with triton.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
            result = client.infer("arraylstm", labels("1003", "-4"), outputs=wanted("logits", "predictions"))
            near(result.as_numpy("logits"), 2, 3)
            assert {text.decode() for text in result.as_numpy("predictions")[0]} == set(map(str, numbers))
            with pytest.raises(Refused, match='Item "01001" is not known'):
                client.infer("arraylstm", labels("01001"))
            with pytest.raises(Refused, match="Item id 1003 is not known; allowed are the ids 0 to 6"):
                client.infer("arraylstm", item(1003))
    finally:
        process.stop()


def test_without_labels_predictions_are_ids(tmp_path: Path) -> None:
    """A model without labels answers predictions as INT64."""
    harness = Harness(write_bundle(tmp_path / "plain", labels=None))
    answer = asyncio.run(send(harness, outputs=[{"name": "predictions"}, {"name": "probabilities"}]))
    predicted, chances = answer.json()["outputs"]
    assert (predicted["datatype"], predicted["shape"], chances["datatype"]) == ("INT64", [1, V], "FP32")
    assert predicted["data"] == np.argsort(-logits(0), kind="stable").tolist()


def test_sequences_are_the_sessions_of_v1(client: Any, server: ServerProcess) -> None:
    """Sequence 4711 is session "4711": each side goes on where the other stopped, with the same numbers."""
    client.infer("arraylstm", item(0), sequence_id=4711, sequence_start=True)
    session = f"{server.url}/v1/sessions/4711"
    answer = httpx.post(f"{session}/events", json={"items": ["b"], "expected_step": 1}).json()
    assert (answer["step"], answer["state"]) == (2, "continued")
    result = client.infer("arraylstm", item(2), outputs=wanted("logits", "step"), sequence_id="4711")
    assert result.as_numpy("step").tolist() == [[3]]
    near(result.as_numpy("logits"), 0, 1, 2)
    raw = result.as_numpy("logits")[0].astype(np.float64)
    softmax = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
    saved = safetensors.numpy.load(httpx.get(f"{session}/state").content)
    assert result.as_numpy("logits").tobytes() == saved["logits"].tobytes()
    peeked = httpx.get(f"{session}/predictions").json()["predictions"]
    for prediction in peeked:
        assert prediction["probability"] == pytest.approx(softmax[index_of(prediction["item"])], abs=1e-7)
    client.infer("arraylstm", item(3), sequence_id=4711, sequence_end=True)
    assert httpx.get(session).status_code == 404


def test_a_retry_under_a_key_is_applied_once(client: Any, server: ServerProcess) -> None:
    """With an Idempotency-Key a repeated step, start or end is answered again, byte for byte, and moves nothing."""
    flags: list[dict[str, Any]] = [{"sequence_start": True}, {}, {"sequence_end": True}]
    for place, flag in enumerate(flags):
        first, again = (
            client.infer(
                "arraylstm",
                item(place),
                outputs=wanted("logits", "step"),
                sequence_id="kept",
                headers={"Idempotency-Key": f"k{place}"},
                **flag,
            )
            for _ in range(2)
        )
        assert again.as_numpy("step").tolist() == first.as_numpy("step").tolist() == [[place + 1]]
        assert again.as_numpy("logits").tobytes() == first.as_numpy("logits").tobytes()
        near(again.as_numpy("logits"), *range(place + 1))
    with pytest.raises(Refused, match="was sent before with another request") as refusal:
        client.infer("arraylstm", item(6), sequence_id="kept", headers={"Idempotency-Key": "k2"})
    assert refusal.value.status() == "400"


def test_a_compressed_request_is_the_same_request(client: Any) -> None:
    """Triton's client may compress what it sends; answers come uncompressed, whatever it would take."""
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            "arraylstm",
            item(1, 2, shape=(1, 2)),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        near(result.as_numpy("logits"), 1, 2)


def test_a_refused_request_leaves_the_sequence_where_it_was(client: Any) -> None:
    """Neither a bad start nor a bad end touches what is held."""
    client.infer("arraylstm", item(1), sequence_id="firm", sequence_start=True)
    for flags in ({"sequence_start": True}, {"sequence_end": True}):
        with pytest.raises(Refused):
            client.infer("arraylstm", item(99), sequence_id="firm", **flags)
    near(client.infer("arraylstm", item(2), sequence_id="firm").as_numpy("logits"), 1, 2)


@pytest.mark.anyio
async def test_a_failed_start_loses_nothing(harness: Harness) -> None:
    """Where the model fails on a start, whether at its first or a later item, the session goes on as it was."""
    await harness.send("u", "a", "b")
    harness.engine.poison = 3
    for ids in ([3], [0, 3]):
        inputs = [{"name": "items", "shape": [len(ids)], "datatype": "INT64", "data": ids}]
        answer = await send(harness, inputs=inputs, parameters={"sequence_id": "u", "sequence_start": True})
        assert answer.status_code == 500
    harness.engine.poison = None
    answer = await send(harness, parameters={"sequence_id": "u"})
    near(np.array(answer.json()["outputs"][0]["data"], np.float32).reshape(1, V), 0, 1, 0)


@pytest.mark.anyio
async def test_a_start_is_one_turn_among_the_others(harness: Harness) -> None:
    """Steps sent before a start count for the old sequence, those after it for the new one, whatever the batching."""
    parameters = [{"sequence_id": 9, "sequence_start": start} for start in (True, False, True, False, False)]
    outputs = [{"name": "step"}]
    answers = await asyncio.gather(*(send(harness, parameters=entry, outputs=outputs) for entry in parameters))
    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[1], [2], [1], [2], [3]]


@pytest.mark.anyio
async def test_a_start_begins_the_times_anew_and_gives_slots_back(harness: Harness) -> None:
    """A restarted session is created now, is not told restored, and no slot is lost over it."""
    await send(harness, parameters={"sequence_id": 3, "sequence_start": True})
    state = (await harness.client.get("/v1/sessions/3/state")).content
    await harness.client.put("/v1/sessions/3/state", content=state)
    free = harness.service.model.slots.free
    harness.clock.now += 60
    await send(harness, parameters={"sequence_id": 3, "sequence_start": True})
    info = (await harness.client.get("/v1/sessions/3")).json()
    assert info["created_at"] == info["last_used_at"]
    assert (await harness.send("3", "a")).json()["state"] == "continued"
    assert harness.service.model.slots.free == free
