"""The endpoints of the model: its manifest, its items, and predictions without a session."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.schemas import PredictAnswer, PredictRequest
from arraylstm_serve.api.scopes import Scope
from arraylstm_serve.bundle.manifest import Manifest, VocabularyFile
from arraylstm_serve.http.body import decode, read_body
from arraylstm_serve.http.endpoints import BODY_PROBLEMS, Endpoint, ask
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import json_response
from arraylstm_serve.sessions.rendering import render_prediction, write_predictions
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.sessions.walking import Predict

PREDICT = Operation(
    method="POST",
    path="/v1/predict",
    name="predict",
    summary="The predictions after a whole history, without a session.",
    scope=Scope.READ_ONLY,
    answers={200: PredictAnswer},
    body=PredictRequest,
    problems=BODY_PROBLEMS,
)

MODEL = Operation(
    method="GET",
    path="/v1/model",
    name="model",
    summary="The manifest of the model served.",
    scope=Scope.READ_ONLY,
    answers={200: Manifest},
)

VOCABULARY = Operation(
    method="GET",
    path="/v1/vocabulary",
    name="vocabulary",
    summary="The labels of the items in the order of their ids, null if the ids are the labels; and the unknown item.",
    scope=Scope.READ_ONLY,
    answers={200: VocabularyFile},
)

predict_decoder = msgspec.json.Decoder(PredictRequest)


async def predict(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer POST /v1/predict."""
    body = await read_body(service, call, request.receive)
    wanted = decode(predict_decoder, body)
    command = Predict(
        items=wanted.items,
        top_k=wanted.top_k,
        exclude=wanted.exclude,
        render=render_prediction,
        write=write_predictions,
    )
    return json_response(await ask(service, call, command))


async def model(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v1/model."""
    return json_response(service.model.bundle.document)


async def vocabulary(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v1/vocabulary."""
    return json_response(service.model.bundle.labels)


ENDPOINTS = (
    Endpoint(PREDICT, predict),
    Endpoint(MODEL, model),
    Endpoint(VOCABULARY, vocabulary),
)
