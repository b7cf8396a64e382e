"""Bodies under /v2, well-formed and not, as no client would send them: binary, nested, compressed, too large."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .bundles import LABELS, V, write_bundle
from .harness import Harness
from .inference import INFER, near, send
from .inference import client as client
from .inference import server as server


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
        ({"outputs": [{"name": "logits"}] * 3}, "3 outputs are requested, some of them twice"),
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
        ("br", b"no", 415, 'Content-Encoding is "br"; allowed are gzip, deflate and identity.'),
        ("gzip", gzip.compress(bytes(10_000_000), mtime=0), 413, "The decompressed body has more than 262144 bytes"),
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
