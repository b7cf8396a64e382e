"""What the server says under /v2 of itself and of what it refuses, as Triton's client and schema expect it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from arraylstm_serve.http.auth import make_key
from arraylstm_serve.open_inference.schemas import MODEL, VERSION

from ..servers import ServerProcess
from .bundles import V
from .harness import Harness
from .inference import INFER, START_MISSING, Refused, item, labels, near, send, triton, wanted
from .inference import client as client
from .inference import server as server


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
    pytest.importorskip("arraylstm_export", reason="the exporter")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="Triton's published schema")
    from google.protobuf import json_format, text_format

    from arraylstm_export import interface as signature
    from arraylstm_export.formats import triton as export

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


def test_keys_are_asked_for_in_the_protocols_words(start_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """With API keys a client without one is refused, and each name has sequences of its own."""
    keys = {name: make_key(name) for name in ("ann", "bob")}
    (tmp_path / "keys").write_text("".join(f"{line}\n" for _, line in keys.values()))
    server = start_server("--api-keys", str(tmp_path / "keys"))
    ann, bob = ({"Authorization": f"Bearer {keys[name][0]}"} for name in ("ann", "bob"))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(Refused, match="has no API key") as refusal:
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
