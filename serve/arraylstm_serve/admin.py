"""The application of the admin listener: probes, metrics, and what an operator may tell the server."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from arraylstm_serve.api.openapi import Operation, document
from arraylstm_serve.api.problems import (
    BACKUP_FAILED,
    FOREIGN_ORIGIN,
    INTERNAL,
    INVALID_JSON,
    INVALID_REQUEST,
    PAYLOAD_TOO_LARGE,
    STOPPING,
    UNSUPPORTED_ENCODING,
    Problem,
    retry_later,
)
from arraylstm_serve.api.schemas import BACKUP_PATH, Backup, BackupRequest, Health, encode
from arraylstm_serve.heavy import LIGHT_BODY
from arraylstm_serve.http import probes
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.http.body import MAX_DETAIL, decode, read_body
from arraylstm_serve.http.door import Door
from arraylstm_serve.http.endpoints import Endpoint
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.http.response import json_response
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.settings import Settings
from arraylstm_serve.stores.base import StoreError
from arraylstm_serve.text import shortened, shown

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

BACKUP = Operation(
    method="POST",
    path="/admin/backup",
    name="backup",
    summary="Write a backup of the SQLite store to a new file on the server's machine, while it serves.",
    answers={200: Backup},
    body=BackupRequest,
    problems=(
        INVALID_JSON,
        INVALID_REQUEST,
        PAYLOAD_TOO_LARGE,
        UNSUPPORTED_ENCODING,
        FOREIGN_ORIGIN,
        BACKUP_FAILED,
        INTERNAL,
        STOPPING,
    ),
)

is_backup_path = re.compile(BACKUP_PATH).fullmatch
backup_decoder = msgspec.json.Decoder(BackupRequest)


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


async def backup(service: Service, call: RequestHead, request: Request) -> Response:
    """Answer POST /admin/backup when the backup is complete.

    Raises:
        Problem: `invalid_request`: the path is not one from the root; `backup_failed`: there is no store that makes
            backups, the file is there already or cannot be written; `stopping`.
    """
    path = decode(backup_decoder, await read_body(service, call, request.receive, LIGHT_BODY)).path
    if is_backup_path(path) is None:
        detail = f"The path is {shown(path)}; write one from the root (/...), of at most 4000 printable characters."
        raise Problem(INVALID_REQUEST, detail)
    if service.keeper is None:
        raise Problem(BACKUP_FAILED, "Sessions are kept in memory alone, so there is no store; --sessions names one.")
    if service.stopping:
        raise retry_later(STOPPING, "The server is stopping; it begins no backup.")
    file, began = Path(path), perf_counter()
    try:
        await service.keeper.store.backup(file)
    except StoreError as error:
        logger.warning("%s: no backup, as %s asked: %s", BACKUP.path, _who(call), error)
        raise Problem(BACKUP_FAILED, shortened(str(error), MAX_DETAIL)) from None
    made = Backup(path, file.stat().st_size, perf_counter() - began)
    logger.info("%s: %d bytes are in %s, as %s asked", BACKUP.path, made.bytes, path, _who(call))
    return json_response(encode(made))


def _log(call: RequestHead, state: str) -> None:
    logger.info("%s: the server is %s, as %s asked", PATH, state, _who(call))


def _who(call: RequestHead) -> str:
    return call.namespace or "somebody without a key"


ENDPOINTS = (*probes.ENDPOINTS, Endpoint(DRAIN, drain), Endpoint(UNDRAIN, undrain), Endpoint(BACKUP, backup))
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
