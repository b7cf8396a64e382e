"""The application of the admin listener: probes, metrics, and what an operator may tell the server."""

from __future__ import annotations

import json
import logging

from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation, document
from arraylstm_serve.api.problems import FOREIGN_ORIGIN, STOPPING, retry_later
from arraylstm_serve.api.schemas import Health, encode
from arraylstm_serve.http import probes
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.door import Door
from arraylstm_serve.http.endpoints import Endpoint
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import json_response
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.settings import Settings

PATH = "/admin/drain"

logger = logging.getLogger(__name__)

DRAIN = Operation(
    method="POST",
    path=PATH,
    name="drain",
    summary="Let /readyz say no, so that balancers send no more requests; those that come are still answered.",
    answers={200: Health},
    problems=(FOREIGN_ORIGIN,),
)

UNDRAIN = Operation(
    method="DELETE",
    path=PATH,
    name="undrain",
    summary="Let /readyz say yes again.",
    answers={200: Health},
    problems=(FOREIGN_ORIGIN, STOPPING),
)


async def drain(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer POST /admin/drain; to repeat it changes nothing."""
    _log(call, "not ready")
    service.draining = True
    return json_response(encode(Health("draining")))


async def undrain(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer DELETE /admin/drain; to repeat it changes nothing.

    Raises:
        Problem: `stopping`: the server got SIGTERM, and cannot be ready again.
    """
    if service.stopping:
        raise retry_later(STOPPING, "The server is stopping; it does not become ready again.")
    _log(call, "ready")
    service.draining = False
    return json_response(encode(Health("ready")))


def _log(call: RequestHead, state: str) -> None:
    logger.info("%s: the server is %s, as %s asked", PATH, state, call.namespace or "somebody without a key")


ENDPOINTS = (*probes.ENDPOINTS, Endpoint(DRAIN, drain), Endpoint(UNDRAIN, undrain))
ABOUT = {
    "title": "arraylstm-serve admin",
    "description": "The admin listener of arraylstm-serve (--admin-port): probes, metrics, and what operators do.",
}


def published() -> str:
    """Return the OpenAPI document for docs/openapi-admin.json; its version is always 0."""
    return json.dumps(document([endpoint.operation for endpoint in ENDPOINTS], "0", ABOUT), indent=2) + "\n"


class AdminApplication(Door):
    """What operators and their tools may ask of one service."""

    def __init__(self, service: Service, settings: Settings, keys: Keys | None) -> None:
        super().__init__(service, settings, keys, ENDPOINTS, ABOUT)
