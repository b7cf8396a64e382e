"""Requests under /v2, from Triton's own client, unchanged, or raw, and the logits that the reference answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ..servers import ServerProcess
from .bundles import WEIGHTS, Reference, V, write_bundle
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
    process = ServerProcess(write_bundle(tmp_path_factory.mktemp("inference") / "bundle"), "--max-items", "20")
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


async def send(harness: Harness, body: bytes = b"", length: object = None, **fields: Any) -> httpx.Response:
    """POST a request as it stands, or one of JSON with some fields changed."""
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    tensor = {"name": "items", "shape": [1, 1], "datatype": "INT64", "data": [0]}
    content = body or json.dumps({"inputs": [tensor], **fields}).encode()
    return await harness.client.post(INFER, content=content, headers=headers)
