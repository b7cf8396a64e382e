"""The operations of the Open Inference Protocol: their paths, types and reasons to refuse them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import CAPACITY, IDEMPOTENCY_KEY_REUSED, NOT_FOUND, Kind
from arraylstm_serve.api.scopes import Scope
from arraylstm_serve.http.endpoints import BODY_PROBLEMS, TURN_PROBLEMS
from arraylstm_serve.open_inference.schemas import (
    ErrorBody,
    InferAnswer,
    InferRequest,
    ModelConfiguration,
    ModelMetadata,
    ModelName,
    ModelReady,
    ModelVersion,
    ServerLive,
    ServerMetadata,
    ServerReady,
)

MODEL_PATH = "/v2/models/{model}"
VERSION_PATH = f"{MODEL_PATH}/versions/{{version}}"
PATH_TYPES: dict[str, Any] = {"model": ModelName, "version": ModelVersion}
INVALID = 422


def in_protocol(kind: Kind) -> Kind:
    """Return a refusal with the protocol's status: 400 for anything wrong with a request."""
    return replace(kind, status=400) if kind.status == INVALID else kind


def _operation(name: str, path: str, summary: str, answers: dict[int, type], *problems: Kind) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        scope=Scope.READ_ONLY,
        answers={**answers},
        problems=tuple(map(in_protocol, problems)),
        refusal=ErrorBody,
        path_types=PATH_TYPES,
    )


SERVER_METADATA = _operation("v2_server", "/v2", "The server and its extensions.", {200: ServerMetadata})
SERVER_LIVE = _operation("v2_live", "/v2/health/live", "Whether the server is alive.", {200: ServerLive})
SERVER_READY = _operation(
    "v2_ready", "/v2/health/ready", "Whether the server is ready for requests.", {200: ServerReady, 400: ServerReady}
)
MODEL_METADATA = _operation("v2_model", MODEL_PATH, "The model's inputs and outputs.", {200: ModelMetadata}, NOT_FOUND)
MODEL_READY = _operation(
    "v2_model_ready",
    f"{MODEL_PATH}/ready",
    "Whether the model is ready for requests.",
    {200: ModelReady, 400: ModelReady},
    NOT_FOUND,
)
MODEL_CONFIG = _operation(
    "v2_model_config", f"{MODEL_PATH}/config", "The model's configuration.", {200: ModelConfiguration}, NOT_FOUND
)
INFER = Operation(
    method="POST",
    path=f"{MODEL_PATH}/infer",
    name="v2_infer",
    summary="Consume items, of a sequence or without one, and return the scores of what comes next.",
    answers={200: InferAnswer},
    body=InferRequest,
    keyed=True,
    binary=True,
    problems=[
        in_protocol(kind)
        for kind in dict.fromkeys((*BODY_PROBLEMS, *TURN_PROBLEMS, NOT_FOUND, IDEMPOTENCY_KEY_REUSED, CAPACITY))
    ],
    refusal=ErrorBody,
    path_types=PATH_TYPES,
)


def of_version(operation: Operation) -> Operation:
    """Return the same operation on a version of the model."""
    return replace(
        operation, path=operation.path.replace(MODEL_PATH, VERSION_PATH), name=f"{operation.name}_of_version"
    )
