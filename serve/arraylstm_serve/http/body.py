"""Read and decode what a request carries: its body, query and session id."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Sequence
from time import perf_counter
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
    UNSUPPORTED_ENCODING,
    Problem,
)
from arraylstm_serve.api.schemas import SESSION_ID
from arraylstm_serve.heavy import LIGHT_BODY
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.text import shortened, shown

MAX_DETAIL = 300
DECODED = 8
"""How many times larger a request is in memory, decoded, than its body: measured for bulk events, then rounded up."""

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's number for each Content-Encoding; x-gzip is gzip (RFC 9110, section 8.4.1.3)."""
_WIDE_ENCODINGS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_is_session_id = re.compile(SESSION_ID).fullmatch

Decoded = TypeVar("Decoded")


async def read_body(service: Service, call: RequestHead, receive: Receive, limit: int | None = None) -> bytes:
    """Read the whole request body, and decompress it if its Content-Encoding says so.

    A long body waits until there is memory for it, which the request gives back at its end, and then for a turn to be
    parsed.

    Args:
        service: has the memory and the turns.
        call: the head of the request.
        receive: gives the body.
        limit: the most bytes; `--max-body` if it is None.

    Raises:
        Problem: `payload_too_large`, as soon as more than limit bytes have arrived, or come of decompressing them;
            `unsupported_encoding`; `invalid_request`: the compressed data are damaged; `overloaded`: there was no
            memory in time.
        ClientDisconnect: the client has closed the connection.
    """
    limit = service.settings.max_body if limit is None else limit
    body = await _receive_body(service, call, receive, limit)
    if call.encodings:
        await _make_room(service, call, limit)
        body = _decompress(body, call.encodings, limit)
    if len(body) > LIGHT_BODY:
        await service.heavy.turn(call.client)
    return body


async def _make_room(service: Service, call: RequestHead, limit: int) -> None:
    """Take memory for a long body, unless the request has it already."""
    if not call.body_bytes:
        patience = call.arrived + service.settings.request_timeout - perf_counter()
        size = DECODED * call.expected_body(limit)
        call.body_bytes = await service.bodies.take(call.client, size, patience)


async def _receive_body(service: Service, call: RequestHead, receive: Receive, limit: int) -> bytes:
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
        if size > LIGHT_BODY:
            await _make_room(service, call, limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decompress(body: bytes, encodings: Sequence[bytes], limit: int) -> bytes:
    """Decompress a body of at most limit bytes."""
    encoding = b", ".join(encodings).decode("latin-1").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in _WINDOW_BITS:
        detail = f"Content-Encoding is {shown(encoding)}; allowed are gzip, deflate and identity."
        raise Problem(UNSUPPORTED_ENCODING, detail, headers={"Accept-Encoding": "gzip, deflate"})
    decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem(INVALID_REQUEST, f"The body is not {encoding}: {error}.") from None
    if len(plain) > limit:
        raise Problem(PAYLOAD_TOO_LARGE, f"The decompressed body has more than {limit} bytes; no more are allowed.")
    if not decompressor.eof or decompressor.unused_data:
        raise Problem(INVALID_REQUEST, f"The body is not one whole {encoding} stream.")
    return plain


def decode(decoder: msgspec.json.Decoder[Decoded], body: bytes | str) -> Decoded:
    """Decode a request from a body, or from a message of a stream, which may be text.

    Raises:
        Problem: `invalid_json` or `invalid_request`.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid_request(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raw = body.encode() if isinstance(body, str) else body
        raise Problem(INVALID_JSON, _not_utf8(raw) or f"{shortened(str(error), MAX_DETAIL)}.") from None


def _not_utf8(body: bytes) -> str:
    """Name the encoding of JSON that is not plain UTF-8 (RFC 8259, section 8.1); empty where it is."""
    if body.startswith(codecs.BOM_UTF8):
        return "The body begins with a byte order mark (EF BB BF); send UTF-8 without one."
    for name, marks in _WIDE_ENCODINGS.items():
        if body.startswith(marks):
            return f"The body is JSON in {name}; send UTF-8."
    if b"\0" in body[:4]:
        return "The body is JSON in UTF-16 or UTF-32; send UTF-8."
    return ""


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
        detail = f"Session id {shown(text)} is not 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -, or is . or .."
        raise Problem(INVALID_SESSION_ID, detail)
    return text
