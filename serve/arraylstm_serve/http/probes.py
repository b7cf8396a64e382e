"""The endpoints about the server itself: statistics, metrics, liveness, readiness."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation
from arraylstm_serve.api.schemas import Health, Stats, encode
from arraylstm_serve.api.scopes import Scope
from arraylstm_serve.http.endpoints import Endpoint
from arraylstm_serve.http.metrics import CONTENT_TYPE_LATEST
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import json_response
from arraylstm_serve.sessions.service import Service

STATS = Operation(
    method="GET",
    path="/v1/stats",
    name="stats",
    summary="Live figures of this server process.",
    scope=Scope.METRICS,
    answers={200: Stats},
)

METRICS = Operation(
    method="GET",
    path="/metrics",
    name="metrics",
    summary="The figures for Prometheus.",
    scope=Scope.METRICS,
    answers={200: str},
)

LIVE = Operation(
    method="GET", path="/healthz", name="live", summary="Whether the server is alive.", answers={200: Health}
)

READY = Operation(
    method="GET",
    path="/readyz",
    name="ready",
    summary="Whether the server is ready for requests.",
    answers={200: Health, 503: Health},
)


async def stats(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /v1/stats."""
    return json_response(service.stats())


async def metrics(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /metrics."""
    return Response(request.app.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def live(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /healthz."""
    return json_response(encode(Health("ok")))


async def ready(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer GET /readyz."""
    unready = service.unready
    return json_response(encode(Health(unready or "ready")), status=503 if unready else 200)


FIGURES = Endpoint(STATS, stats)
ENDPOINTS = (Endpoint(LIVE, live), Endpoint(READY, ready), Endpoint(METRICS, metrics))
"""What probes and Prometheus ask for: on the admin listener, and on the public one unless --public-metrics is off."""
