"""Read and decode what a request carries: its body, query and session id."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from arraylstm_serve.api.problems import (
    INVALID_JSON,
    INVALID_REQUEST,
    INVALID_SESSION_ID,
    PAYLOAD_TOO_LARGE,
    Problem,
)
from arraylstm_serve.api.schemas import SESSION_ID
from arraylstm_serve.text import shortened, shown

MAX_DETAIL = 300
_is_session_id = re.compile(SESSION_ID).fullmatch

Decoded = TypeVar("Decoded")


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read the whole request body.

    Raises:
        Problem: `payload_too_large`, as soon as more than limit bytes have arrived.
        ClientDisconnect: the client has closed the connection.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise Problem(PAYLOAD_TOO_LARGE, f"The body has more than {limit} bytes; no more are allowed.")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode(decoder: msgspec.json.Decoder[Decoded], body: bytes) -> Decoded:
    """Decode a request from a body.

    Raises:
        Problem: `invalid_json` or `invalid_request`.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid_request(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(INVALID_JSON, f"{shortened(str(error), MAX_DETAIL)}.") from None


def decode_query(kind: type[Decoded], query: QueryParams) -> Decoded:
    """Decode a request from a query.

    Raises:
        Problem: `invalid_request`.
    """
    for name in query:
        if (times := len(query.getlist(name))) > 1:
            detail = f"The query parameter {shown(name)} is given {times} times; once is allowed."
            raise Problem(INVALID_REQUEST, detail)
    try:
        return msgspec.convert(dict(query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid_request(error) from None


def _invalid_request(error: msgspec.ValidationError) -> Problem:
    return Problem(INVALID_REQUEST, f"{shortened(str(error), MAX_DETAIL)}.")


def valid_session_id(text: str) -> str:
    """Return the session id if it is valid.

    Raises:
        Problem: `invalid_session_id`.
    """
    if _is_session_id(text) is None:
        detail = f"Session id {shown(text)} is not 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -"
        raise Problem(INVALID_SESSION_ID, detail)
    return text
