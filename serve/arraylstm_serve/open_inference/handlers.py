"""The Open Inference Protocol under /v2, with Triton's sequence and binary tensor data extensions.

A client of a Triton server with the exported model repository works with this server unchanged. Sequences are
sessions: `sequence_start` begins one, `sequence_end` ends it, and /v1 has the same sessions under the same ids.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve import __version__
from arraylstm_serve.api.problems import JSON, NOT_FOUND, Problem
from arraylstm_serve.api.schemas import encode
from arraylstm_serve.http.body import read_body
from arraylstm_serve.http.endpoints import Endpoint, Handler
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import json_response
from arraylstm_serve.open_inference import inference, operations, tensors
from arraylstm_serve.open_inference.inference import ITEMS, LOGITS
from arraylstm_serve.open_inference.schemas import (
    MODEL,
    VERSION,
    ConfigTensor,
    ErrorBody,
    ModelConfiguration,
    ModelMetadata,
    ModelReady,
    OldestStrategy,
    Reshape,
    SequenceBatching,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from arraylstm_serve.open_inference.tensors import FP32, INT64
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.text import shown

ROOT = "/v2"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "sequence", "sequence(string_id)")
HEADER_LENGTH = "Inference-Header-Content-Length"


def concerns(path: str) -> bool:
    """Whether a path belongs to the protocol."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def error_response(problem: Problem) -> Response:
    """Return a problem in the protocol's form."""
    status = operations.in_protocol(problem.kind).status
    body = encode(ErrorBody(problem.detail))
    return Response(body, status_code=status, headers=problem.headers, media_type=JSON)


async def server_metadata(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v2."""
    return json_response(encode(ServerMetadata("arraylstm-serve", __version__, list(EXTENSIONS))))


async def server_live(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v2/health/live."""
    return json_response(encode(ServerLive(True)))


async def server_ready(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v2/health/ready; in the protocol 400 means no."""
    return json_response(encode(ServerReady(not service.unready)), 400 if service.unready else 200)


async def model_ready(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v2/models/{model}/ready."""
    return json_response(encode(ModelReady(MODEL, not service.unready)), 400 if service.unready else 200)


async def model_metadata(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v2/models/{model}."""
    inputs = [TensorMetadata(ITEMS, INT64, [-1, 1])]
    outputs = [TensorMetadata(LOGITS, FP32, [-1, len(service.model.vocabulary)])]
    return json_response(encode(ModelMetadata(MODEL, [VERSION], "onnxruntime_onnx", inputs, outputs)))


async def model_config(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v2/models/{model}/config."""
    settings = service.settings
    return json_response(
        encode(
            ModelConfiguration(
                name=MODEL,
                backend="onnxruntime",
                max_batch_size=settings.max_batch,
                input=[ConfigTensor(ITEMS, "TYPE_INT64", [1], Reshape([]))],
                output=[ConfigTensor(LOGITS, "TYPE_FP32", [len(service.model.vocabulary)])],
                sequence_batching=SequenceBatching(
                    max_sequence_idle_microseconds=int(settings.session_ttl * 1e6),
                    oldest=OldestStrategy(settings.max_sessions),
                ),
            )
        )
    )


async def infer(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer POST /v2/models/{model}/infer."""
    body = await read_body(service, call, request.receive)
    answer = await inference.infer(service, call, body, request.headers.get(HEADER_LENGTH))
    length = answer.find(tensors.END_OF_JSON) + 1
    if not length:
        return json_response(answer)
    return Response(answer, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})


def of_model(handler: Handler) -> Handler:
    """Return the handler, with a check that the request names this model, and this version if any."""

    async def checked(service: Service, call: RequestHead, request: Request) -> Response:
        model, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if (model, version) != (MODEL, VERSION):
            detail = f"Request for unknown model: {shown(model)} version {shown(version)} is not found"
            raise Problem(NOT_FOUND, f"{detail}; there is {shown(MODEL)} version {shown(VERSION)}")
        return await handler(service, call, request)

    return checked


_OF_MODEL = (
    Endpoint(operations.MODEL_METADATA, of_model(model_metadata)),
    Endpoint(operations.MODEL_READY, of_model(model_ready)),
    Endpoint(operations.MODEL_CONFIG, of_model(model_config)),
    Endpoint(operations.INFER, of_model(infer)),
)
ENDPOINTS = (
    Endpoint(operations.SERVER_METADATA, server_metadata),
    Endpoint(operations.SERVER_LIVE, server_live),
    Endpoint(operations.SERVER_READY, server_ready),
    *_OF_MODEL,
    *(Endpoint(operations.of_version(operation), handler) for operation, handler in _OF_MODEL),
)
