"""The Open Inference Protocol under /v2: Triton's own client, unchanged, and raw requests that no client would send."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from arraylstm_serve.auth import make_key
from arraylstm_serve.oip_schemas import MODEL, VERSION

from ..servers import ServerProcess
from .bundles import LABELS, WEIGHTS, Reference, V, expected_predictions, index_of, probabilities, write_bundle
from .harness import Harness

pytest.importorskip("geventhttpclient", reason="what Triton's HTTP client is built on: geventhttpclient")
triton = pytest.importorskip("tritonclient.http", reason="Triton's HTTP client: tritonclient")
Refused = triton.InferenceServerException

INFER = "/v2/models/arraylstm/infer"
START_MISSING = (
    "inference request for sequence {} to model 'arraylstm' must specify the START flag on the first request of the "
    "sequence"
)


def logits(*items: int) -> NDArray[np.float64]:
    """What the reference gives after these item ids."""
    model = Reference()
    for item in items:
        model.step(item)
    return model.h @ WEIGHTS["W"].astype(np.float64) + WEIGHTS["b"]


def near(seen: NDArray[Any] | None, *items: int) -> None:
    """Hold an answer's logits against the reference."""
    assert seen is not None
    assert (seen.shape, seen.dtype) == ((1, V), np.float32)
    np.testing.assert_allclose(seen[0], logits(*items), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process that the tests of this module share; each uses sequences of its own."""
    process = ServerProcess(write_bundle(tmp_path_factory.mktemp("oip") / "bundle"), "--max-items", "20")
    yield process
    process.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Any]:
    """Triton's client for that server."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


def item(*ids: int, shape: tuple[int, ...] = (1, 1), binary: bool = True) -> list[Any]:
    """The inputs of a request as a client of the exported model repository makes them."""
    tensor = triton.InferInput("items", list(shape), "INT64")
    return [tensor.set_data_from_numpy(np.array(ids, np.int64).reshape(shape), binary_data=binary)]


def labels(*texts: str, binary: bool = True) -> list[Any]:
    """The inputs of a request that names items by their labels."""
    tensor = triton.InferInput("items", [1, len(texts)], "BYTES")
    return [tensor.set_data_from_numpy(np.array([texts], np.object_), binary_data=binary)]


def wanted(*names: str, binary: bool = True) -> list[Any]:
    """Requested outputs."""
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


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


def test_the_server_says_what_it_is(client: Any) -> None:
    """Health, metadata and configuration are what Triton's client expects of a Triton with the exported repository."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("arraylstm")
    assert client.is_model_ready("arraylstm", "1")
    assert not client.is_model_ready("arraylstm", "2")
    assert not client.is_model_ready("other")
    server = client.get_server_metadata()
    assert {"sequence", "sequence(string_id)", "binary_tensor_data", "model_configuration"} == set(server["extensions"])
    assert server["name"] == "arraylstm-serve"
    metadata = client.get_model_metadata("arraylstm", "1")
    assert metadata == client.get_model_metadata("arraylstm")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "items", "datatype": "INT64", "shape": [-1, 1]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, V]}]


def test_the_configuration_is_that_of_the_exported_repository(client: Any) -> None:
    """Read by Triton's published schema, it has the name, input, output and strategy of config.pbtxt."""
    export = pytest.importorskip("arraylstm_export.formats.triton", reason="the exporter")
    signature = pytest.importorskip("arraylstm_export.interface")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="Triton's published schema")
    from google.protobuf import json_format, text_format

    interface = signature.Interface(V, (signature.State("h", (5,)),))
    theirs = text_format.Parse(export.repository_config(interface), schema.ModelConfig())
    ours = json_format.ParseDict(client.get_model_config("arraylstm"), schema.ModelConfig())
    assert (ours.name, ours.backend, ours.max_batch_size) == (theirs.name, theirs.backend, theirs.max_batch_size)
    assert export.MODEL.split("/")[:2] == [MODEL, VERSION]
    assert list(ours.input) == list(theirs.input)
    assert list(ours.output) == list(theirs.output)
    batching = ours.sequence_batching
    assert batching.WhichOneof("strategy_choice") == "oldest"
    assert batching.max_sequence_idle_microseconds == theirs.sequence_batching.max_sequence_idle_microseconds


def test_what_is_not_there_is_refused_in_words(client: Any) -> None:
    """Another model, version, input, output or datatype is told of with what there is."""
    for arguments, status, words in (
        ({"model_name": "other"}, "404", 'Request for unknown model: "other" version "1" is not found'),
        ({"model_version": "3"}, "404", 'version "3" is not found; there is "arraylstm" version "1"'),
        ({"outputs": wanted("scores")}, "400", "unexpected inference output \"scores\" for model 'arraylstm'"),
        ({"inputs": []}, "400", "expected 1 input but got 0 inputs"),
        ({"inputs": [triton.InferInput("x", [1], "INT64")]}, "400", 'unexpected inference input "x"'),
        ({"inputs": labels("a", "nope")}, "400", 'Item "nope" is not known'),
        ({"inputs": item(7)}, "400", "Item id 7 is not known; allowed are the ids 0 to 6"),
        ({"inputs": item(-1)}, "400", "Item id -1 is not known"),
        ({"inputs": item(1, 2, shape=(2, 1))}, "400", r"shape [2, 1]: a request must have batch-size 1"),
        ({"inputs": item(1, shape=(1, 1, 1))}, "400", "shape [1, 1, 1]; expected [n] or [1, n]"),
        ({"inputs": item(shape=(1, 0))}, "400", "with at least one item"),
        ({"inputs": item(*[0] * 21, shape=(21,))}, "400", "The request carries 21 items; at most 20 are allowed."),
        ({"sequence_id": "a/b"}, "400", 'Session id "a/b" is not 1 to 128 characters'),
        ({"sequence_id": 2**64}, "400", "sequence_id is 18446744073709551616; allowed are 0 to 18446744073709551615"),
        ({"sequence_id": -1}, "400", "Expected `int` >= 0 - at `$.parameters.sequence_id`"),
        ({"parameters": {"top_k": -1}}, "400", "`$.parameters.top_k`"),
        ({"outputs": [triton.InferRequestedOutput("logits", class_count=2)]}, "400", "as a classification"),
    ):
        with pytest.raises(Refused) as refusal:
            client.infer(**{"model_name": "arraylstm", "inputs": item(0), **arguments})
        assert words in refusal.value.message()
        assert refusal.value.status() == status


def test_a_refused_request_leaves_the_sequence_where_it_was(client: Any) -> None:
    """Neither a bad start nor a bad end touches what is held."""
    client.infer("arraylstm", item(1), sequence_id="firm", sequence_start=True)
    for flags in ({"sequence_start": True}, {"sequence_end": True}):
        with pytest.raises(Refused):
            client.infer("arraylstm", item(99), sequence_id="firm", **flags)
    near(client.infer("arraylstm", item(2), sequence_id="firm").as_numpy("logits"), 1, 2)


def test_keys_are_asked_for_in_the_protocols_words(start_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """With API keys a client without one is refused, and each name has sequences of its own."""
    keys = {name: make_key(name) for name in ("ann", "bob")}
    (tmp_path / "keys").write_text("".join(f"{line}\n" for _, line in keys.values()))
    server = start_server("--api-keys", str(tmp_path / "keys"))
    ann, bob = ({"Authorization": f"Bearer {keys[name][0]}"} for name in ("ann", "bob"))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(Refused, match="carries no API key") as refusal:
            client.infer("arraylstm", item(0))
        assert refusal.value.status() == "401"
        assert not client.is_server_ready()
        assert client.is_server_ready(headers={"X-API-Key": keys["bob"][0]})
        client.infer("arraylstm", item(1), sequence_id=5, sequence_start=True, headers=ann)
        with pytest.raises(Refused, match=START_MISSING.format(5)):
            client.infer("arraylstm", item(2), sequence_id=5, headers=bob)
        near(client.infer("arraylstm", item(2), sequence_id=5, headers=ann).as_numpy("logits"), 1, 2)


def test_requests_are_counted_by_route(client: Any, server: ServerProcess) -> None:
    """The metrics call the route by its pattern, whatever the model's name in the request."""
    client.infer("arraylstm", item(0))
    client.infer("arraylstm", item(0), model_version="1")
    with pytest.raises(Refused):
        client.infer("nobody", item(0))
    metrics = httpx.get(f"{server.url}/metrics").text
    route = re.escape("/v2/models/{model}/infer")
    assert re.search(rf'arraylstm_requests_total{{code="200",route="{route}"}}', metrics)
    assert re.search(rf'arraylstm_requests_total{{code="404",route="{route}"}}', metrics)
    assert 'route="/v2/models/{model}/versions/{version}/infer"' in metrics
    assert "nobody" not in metrics


async def send(harness: Harness, body: bytes = b"", length: object = None, **fields: Any) -> httpx.Response:
    """POST a request as it stands, or one of JSON with some fields changed."""
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    tensor = {"name": "items", "shape": [1, 1], "datatype": "INT64", "data": [0]}
    content = body or json.dumps({"inputs": [tensor], **fields}).encode()
    return await harness.client.post(INFER, content=content, headers=headers)


def tensor(datatype: str = "INT64", size: int | None = 8, shape: Any = (1, 1), **fields: Any) -> bytes:
    """The JSON of a request whose items follow it."""
    parameters = {} if size is None else {"binary_data_size": size}
    entry = {"name": "items", "shape": shape, "datatype": datatype, "parameters": parameters, **fields}
    return json.dumps({"inputs": [entry]}).encode()


ONE = np.int64(1).tobytes()
HEAD = tensor()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (HEAD + ONE, len(HEAD) + 9, "allowed are 0 to"),
        (HEAD + ONE, "-1", 'Inference-Header-Content-Length is "-1"'),
        (HEAD + ONE, "0" * 20 + "9" * 5000, 'Inference-Header-Content-Length is "0000'),
        (HEAD + ONE, "abc", 'Inference-Header-Content-Length is "abc"'),
        (HEAD + ONE, "9" * 5000, "allowed are 0 to"),
        (HEAD + ONE, "", 'Inference-Header-Content-Length is ""'),
        (HEAD + ONE, len(HEAD) - 3, "truncated"),
        (HEAD + ONE, 0, "truncated"),
        (HEAD + ONE, None, "JSON is malformed"),
        (HEAD + ONE[:4], len(HEAD), "4 bytes follow the JSON"),
        (HEAD + ONE * 2, len(HEAD), "not binary_data_size 8"),
        (HEAD, None, "0 bytes follow the JSON"),
        (tensor(size=7) + ONE[:7], len(tensor(size=7)), "binary_data_size 7; its shape [1, 1] takes 8"),
        (tensor(size=None, data=[1]) + ONE, len(tensor(size=None, data=[1])), "no input has binary_data_size"),
        (tensor(data=[1]) + ONE, len(tensor(data=[1])), "either data or the parameter binary_data_size"),
        (tensor(size=None), None, "either data or the parameter binary_data_size"),
        (tensor(size=-1), None, "Expected `int` >= 0"),
        (tensor(size=None, data=["a"]), None, 'of datatype INT64 has "a" in data'),
        (tensor("BYTES", None, data=[1]), None, "of datatype BYTES has 1 in data"),
        (tensor(size=None, data=[1, 2]), None, "2 elements in data; its shape [1, 1] has 1"),
        (tensor("INT32", None, data=[1]), None, 'datatype "INT32"; expected INT64 or BYTES'),
        (tensor("BYTES") + ONE, len(tensor("BYTES")), "the length of an element has 3 bytes left, not 4"),
        (tensor("BYTES", 3) + b"abc", len(tensor("BYTES", 3)), "is not a BYTES tensor of UTF-8"),
        (tensor("BYTES", 5) + b"\2\0\0\0a", len(tensor("BYTES", 5)), "an element of 2 bytes has 1 left"),
        (tensor("BYTES", 5) + b"\1\0\0\0\xff", len(tensor("BYTES", 5)), "is not a BYTES tensor of UTF-8"),
        (tensor("BYTES", 4) + b"\xff" * 4, len(tensor("BYTES", 4)), "an element of 4294967295 bytes has 0 left"),
        (tensor("BYTES", 8) + bytes(8), len(tensor("BYTES", 8)), "2 elements; its shape [1, 1] has 1"),
        (tensor(shape=[2**62]) + ONE, len(tensor(shape=[2**62])), "at most 1000 are allowed"),
        (tensor(shape=[1, 2**40]) + ONE, len(tensor(shape=[1, 2**40])), "at most 1000 are allowed"),
        (tensor(shape=[-1]) + ONE, len(tensor(shape=[-1])), "Expected `int` >= 0"),
        (tensor(shape=[]) + ONE, len(tensor(shape=[])), "expected [n] or [1, n]"),
        (b"[]", None, "Expected `object`, got `array`"),
    ],
)
async def test_malformed_bodies_are_told_what_is_wrong(
    harness: Harness, body: bytes, length: object, words: str
) -> None:
    """Sizes that do not fit, data that are no such tensor and JSON that is none get 400 and a sentence."""
    answer = await send(harness, body, length)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


@pytest.mark.anyio
async def test_nested_data_and_json_answers_are_the_protocols(harness: Harness) -> None:
    """Data may be nested as the shape is; without binary data an answer is plain JSON."""
    inputs = [{"name": "items", "shape": [1, 2], "datatype": "BYTES", "data": [["a", "b"]]}]
    answer = await send(harness, inputs=inputs, parameters={"unheard_of": [1]})
    assert answer.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in answer.headers
    (output,) = answer.json()["outputs"]
    near(np.array(output["data"], np.float32).reshape(output["shape"]), 0, 1)


@pytest.mark.anyio
async def test_a_binary_answer_measures_its_json(harness: Harness) -> None:
    """The header gives the length of the JSON, and the binary data fill the rest."""
    answer = await send(harness, id="a\nb", parameters={"binary_data_output": True})
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    head = json.loads(answer.content[:length])
    assert head["id"] == "a\nb"
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 4 * V}
    near(np.frombuffer(answer.content[length:], "<f4").reshape(1, V), 0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"parameters": {"sequence_start": True}}, "need a sequence_id"),
        ({"parameters": {"sequence_id": "", "sequence_end": True}}, "need a sequence_id"),
        ({"parameters": {"sequence_id": 1.5}}, "`$.parameters.sequence_id`"),
        ({"outputs": [{"name": "logits"}] * 3}, "3 outputs are wanted, some of them twice"),
        ({"outputs": [{"name": "step", "parameters": {"shared_memory_region": "r"}}]}, "in shared memory"),
    ],
)
async def test_requests_that_mean_nothing_are_refused(harness: Harness, fields: dict[str, Any], words: str) -> None:
    """Flags without a sequence and outputs that cannot be given are told of."""
    answer = await send(harness, **fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("encoding", "content", "status", "words"),
    [
        ("gzip", b"no", 400, "The body is not gzip"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-1], 400, "not one whole gzip stream"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"x", 400, "not one whole gzip stream"),
        ("br", b"no", 400, 'Content-Encoding is "br"; allowed are gzip, deflate and none.'),
        ("gzip", gzip.compress(bytes(10_000_000), mtime=0), 413, "The inflated body has more than 262144 bytes"),
    ],
)
async def test_compression_is_bounded(harness: Harness, encoding: str, content: bytes, status: int, words: str) -> None:
    """What cannot be inflated, or inflates beyond the bound on bodies, is refused."""
    answer = await harness.client.post(INFER, content=content, headers={"Content-Encoding": encoding})
    assert answer.status_code == status
    assert words in answer.json()["error"]


@pytest.mark.anyio
async def test_a_body_over_the_bound_is_refused(bundle_path: Path) -> None:
    """The bound on bodies holds here too."""
    answer = await send(Harness(bundle_path, max_body=100), b" " * 101)
    assert answer.status_code == 413
    assert "more than 100 bytes" in answer.json()["error"]


@pytest.mark.anyio
async def test_refusals_of_every_layer_speak_the_protocol(harness: Harness) -> None:
    """No path, no method and a fault inside are told as {"error"}, with the headers that go with the status."""
    missing = await harness.client.get("/v2/nothing")
    assert (missing.status_code, list(missing.json())) == (404, ["error"])
    method = await harness.client.get(INFER)
    assert (method.status_code, method.headers["allow"], list(method.json())) == (405, "POST", ["error"])
    assert "problem" in (await harness.client.get("/nothing")).headers["content-type"]

    def fail(items: object) -> None:
        raise RuntimeError("no device")

    harness.engine.before = fail
    failed = await send(harness)
    assert (failed.status_code, list(failed.json())) == (500, ["error"])


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
    free = harness.service.arena.free
    harness.clock.now += 60
    await send(harness, parameters={"sequence_id": 3, "sequence_start": True})
    info = (await harness.client.get("/v1/sessions/3")).json()
    assert info["created_at"] == info["last_used_at"]
    assert (await harness.send("3", "a")).json()["state"] == "continued"
    assert harness.service.arena.free == free


@pytest.mark.anyio
async def test_a_server_on_its_way_out_is_not_ready(harness: Harness) -> None:
    """Draining, it says no with 400 as Triton does, and lives still."""
    harness.service.draining = True
    for path, status in (("health/ready", 400), ("models/arraylstm/ready", 400), ("health/live", 200)):
        assert (await harness.client.get(f"/v2/{path}")).status_code == status
        assert (await harness.client.head(f"/v2/{path}")).status_code == status


@pytest.mark.anyio
async def test_answers_fit_the_document(harness: Harness) -> None:
    """Every answer of the protocol is valid against the schema that the document promises."""
    document = harness.app.openapi()

    def validate(name: str, answer: httpx.Response) -> None:
        jsonschema_rs.validate({"$ref": f"#/components/schemas/{name}", **document}, answer.json())

    outputs = [{"name": name} for name in ("logits", "predictions", "probabilities", "step")]
    validate("InferAnswer", await send(harness, outputs=outputs, id="x"))
    validate("ErrorBody", await send(harness, b"{"))
    for path, name in (
        ("", "ServerMetadata"),
        ("/health/live", "ServerLive"),
        ("/health/ready", "ServerReady"),
        ("/models/arraylstm", "ModelMetadata"),
        ("/models/arraylstm/ready", "ModelReady"),
        ("/models/arraylstm/versions/1/config", "ModelConfiguration"),
    ):
        validate(name, await harness.client.get(f"/v2{path}"))


@pytest.mark.anyio
async def test_the_unknown_item_stands_in_for_labels_alone(tmp_path: Path) -> None:
    """Where the model has an unknown item, a label not listed becomes it; an id that is none is refused still."""
    harness = Harness(write_bundle(tmp_path / "unknown", unknown="e"))
    for datatype, data, status in (("BYTES", ["nope"], 200), ("INT64", [7], 400)):
        inputs = [{"name": "items", "shape": [1], "datatype": datatype, "data": data}]
        answer = await send(harness, inputs=inputs)
        assert answer.status_code == status
        if status == 200:
            seen = np.array(answer.json()["outputs"][0]["data"], np.float32).reshape(1, V)
            near(seen, LABELS.index("e"))
