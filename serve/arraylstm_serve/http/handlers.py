"""A handler for each operation of /v1 and around it; the busiest one, `events`, is apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.problems import UPGRADE_REQUIRED, Problem
from arraylstm_serve.api.schemas import BulkRequest, Health, PeekQuery, PredictRequest, encode
from arraylstm_serve.http import bulk, operations
from arraylstm_serve.http import websocket as stream
from arraylstm_serve.http.body import decode, decode_query, read_body, valid_session_id
from arraylstm_serve.http.metrics import CONTENT_TYPE_LATEST
from arraylstm_serve.http.request import Call
from arraylstm_serve.http.response import json_response, problem_response
from arraylstm_serve.sessions import state_file as statefile
from arraylstm_serve.sessions.commands import Command, Inspect, Peek, Predict, Remove, Restore, Save
from arraylstm_serve.sessions.rendering import render_prediction, render_session
from arraylstm_serve.sessions.service import Service

Handler = Callable[[Service, Call, Request], Awaitable[Response]]

predict_decoder = msgspec.json.Decoder(PredictRequest)
bulk_decoder = msgspec.json.Decoder(BulkRequest)


async def inspect(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}."""
    command = Inspect(session_id=_session_id(request), describe=service.describe)
    return json_response(await _ask(service, call, command))


async def remove(service: Service, call: Call, request: Request) -> Response:
    """Answer DELETE /v1/sessions/{session_id}."""
    await _ask(service, call, Remove(session_id=_session_id(request), idempotency_key=call.idempotency_key()))
    return Response(status_code=204)


async def peek(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}/predictions."""
    session_id = _session_id(request)
    query = decode_query(PeekQuery, request.query_params)
    command = Peek(session_id=session_id, top_k=query.top_k, render=render_session)
    return json_response(await _ask(service, call, command))


async def save(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/sessions/{session_id}/state."""
    session_id = _session_id(request)
    body = await _ask(service, call, Save(session_id=session_id))
    name = f'attachment; filename="{session_id}.safetensors"'
    return Response(body, media_type=statefile.MEDIA_TYPE, headers={"Content-Disposition": name})


async def restore(service: Service, call: Call, request: Request) -> Response:
    """Answer PUT /v1/sessions/{session_id}/state."""
    session_id = _session_id(request)
    body = await read_body(request.receive, max(service.settings.max_body, service.largest_state))
    command = Restore(
        session_id=session_id, idempotency_key=call.idempotency_key(), file=body, describe=service.describe
    )
    return json_response(await _ask(service, call, command))


async def predict(service: Service, call: Call, request: Request) -> Response:
    """Answer POST /v1/predict."""
    body = await read_body(request.receive, service.settings.max_body)
    wanted = decode(predict_decoder, body)
    command = Predict(items=wanted.items, top_k=wanted.top_k, exclude=wanted.exclude, render=render_prediction)
    return json_response(await _ask(service, call, command))


async def advance_all(service: Service, call: Call, request: Request) -> Response:
    """Answer POST /v1/events."""
    body = await read_body(request.receive, service.settings.max_body)
    return json_response(await bulk.advance_all(service, call, decode(bulk_decoder, body)))


async def stream_upgrade(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/stream without an upgrade."""
    detail = f"{stream.PATH} is a WebSocket; connect to it with one."
    return problem_response(Problem(UPGRADE_REQUIRED, detail, headers={"Upgrade": "websocket"}))


async def model(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/model."""
    return json_response(service.model.bundle.document)


async def vocabulary(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/vocabulary."""
    return json_response(service.model.bundle.labels)


async def stats(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /v1/stats."""
    return json_response(service.stats())


async def metrics(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /metrics."""
    return Response(request.app.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def live(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /healthz."""
    return json_response(encode(Health("ok")))


async def ready(service: Service, call: Call, request: Request) -> Response:
    """Answer GET /readyz."""
    if service.draining:
        return json_response(encode(Health("draining")), status=503)
    return json_response(encode(Health("ready")))


HANDLERS: tuple[tuple[Operation, Handler], ...] = (
    (operations.INSPECT, inspect),
    (operations.REMOVE, remove),
    (operations.PEEK, peek),
    (operations.SAVE, save),
    (operations.RESTORE, restore),
    (operations.ADVANCE_ALL, advance_all),
    (operations.STREAM, stream_upgrade),
    (operations.PREDICT, predict),
    (operations.MODEL, model),
    (operations.VOCABULARY, vocabulary),
    (operations.STATS, stats),
    (operations.METRICS, metrics),
    (operations.LIVE, live),
    (operations.READY, ready),
)


def _ask(service: Service, call: Call, command: Command) -> Awaitable[bytes]:
    return service.ask(command, call.caller(service.settings.request_timeout))


def _session_id(request: Request) -> str:
    return valid_session_id(request.path_params["session_id"])
