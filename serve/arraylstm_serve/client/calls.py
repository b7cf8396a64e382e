"""Each operation of the server as a value: its request, and how to read its answer."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
import msgspec
from msgspec import Struct

from arraylstm_serve.api.schemas import (
    KEY,
    KEYS_REMEMBERED,
    SESSION_ID,
    BulkAnswer,
    BulkEvent,
    BulkRequest,
    EventsRequest,
    Health,
    Item,
    PredictAnswer,
    PredictRequest,
    ProblemBody,
    SessionAnswer,
    SessionInfo,
    encode,
)
from arraylstm_serve.client.errors import (
    AnswerError,
    ClientError,
    RefusedError,
    UnknownSessionError,
    UnreachableError,
    refusal,
    refused,
)
from arraylstm_serve.text import shown

T = TypeVar("T")
Result = SessionAnswer | RefusedError
LOST = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
"""The errors by which httpx says that no answer came."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One call of an operation.

    Attributes:
        method: the HTTP method.
        path: the path and query, appended to the server's URL.
        read: turns the answer into the result, or raises a ClientError.
        content: the body.
        content_type: the body's.
        key: the idempotency key, the same on every try.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    content: bytes | None = None
    content_type: str | None = None
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of this call, besides those of every call."""
        headers = {"Content-Type": self.content_type, "Idempotency-Key": self.key}
        return {name: value for name, value in headers.items() if value is not None}

    def failure(self, error: ClientError | httpx.RequestError) -> ClientError:
        """Return the error that the call raises if a try ended with this one."""
        if isinstance(error, ClientError):
            failed = error
        else:
            failed = UnreachableError(f"{self.method} {error.request.url} got no answer: {described(error)}")
            failed.__cause__ = error
        failed.key = self.key
        return failed


def described(error: Exception) -> str:
    """Return an error's message, or its name if it has none."""
    return str(error) or type(error).__name__


def new_key() -> str:
    """Make a random idempotency key."""
    return secrets.token_hex(16)


def valid_key(key: str | None) -> str:
    """Return the idempotency key if it is valid, a random one for None.

    Raises:
        ValueError: it is not valid.
    """
    if key is None:
        return new_key()
    if re.fullmatch(KEY, key) is None:
        raise ValueError(f"The idempotency key {shown(key)} does not match {KEY}.")
    return key


def predict(items: Sequence[Item], top_k: int, exclude: Sequence[Item]) -> Call[PredictAnswer]:
    """The predictions after a whole history, without a session."""
    request = PredictRequest(_listed(items), top_k, list(exclude))
    return _post("/v1/predict", request, _reader(PredictAnswer))


def send_many(events: Sequence[BulkEvent]) -> Call[list[Result]]:
    """Events of many sessions.

    Raises:
        ValueError: a session has more events than it remembers keys, so a retry could apply the first ones twice.
    """
    unguarded = Counter(event.session_id for event in events if event.expected_step is None)
    for session_id, number in unguarded.items():
        if number > KEYS_REMEMBERED:
            raise ValueError(
                f"Session {session_id} has {number} events without expected_step; at most {KEYS_REMEMBERED} may be "
                f"sent in one call, because a session remembers only that many idempotency keys."
            )
    keyed = [with_key(event) for event in events]

    def read(response: httpx.Response) -> list[Result]:
        results = [result(raw) for raw in decode(_good(response), BulkAnswer).results]
        if len(results) != len(keyed):
            raise AnswerError(f"The answer has {len(results)} results for {len(keyed)} events.")
        return [tagged(outcome, event) for outcome, event in zip(results, keyed, strict=True)]

    return _post("/v1/events", BulkRequest(keyed), read)


def model() -> Call[dict[str, Any]]:
    """The manifest of the model served."""
    return Call(method="GET", path="/v1/model", read=_reader(dict[str, Any]))


def health() -> Call[Health]:
    """Whether the server is alive."""
    return Call(method="GET", path="/healthz", read=_reader(Health))


def ready() -> Call[bool]:
    """Whether the server is ready for requests; 503 means that it is not."""

    def read(response: httpx.Response) -> bool:
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return False
        decode(_good(response), Health)
        return True

    return Call(method="GET", path="/readyz", read=read)


class SessionCore:
    """A session as its client sees it.

    Args:
        session_id: its id.
        step: the step it should be at; None if that is not known.
        strict: whether events apply only if the session is at `step`.

    Attributes:
        session_id: its id.
        step: the step it is at, by the answers to this object; None before the first answer. Set it to the step of a
            StepConflictError to continue from there, or to 0 to begin again after a SessionGoneError.
        strict: whether events apply only if the session is at `step`.

    Raises:
        ValueError: the id is not valid.
    """

    def __init__(self, session_id: str, step: int | None = None, strict: bool = True) -> None:
        if re.fullmatch(SESSION_ID, session_id) is None:
            raise ValueError(f"The session id {shown(session_id)} does not match {SESSION_ID}.")
        self.session_id = session_id
        self.step = step
        self.strict = strict
        self._path = f"/v1/sessions/{session_id}"
        if session_id in (".", ".."):  # URLs would drop such a segment
            self._path = f"/v1/sessions/{session_id.replace('.', '%2E')}"

    def _send(
        self, items: Sequence[Item], top_k: int, exclude: Sequence[Item], end: bool, key: str | None
    ) -> Call[SessionAnswer]:
        expected_step = self.step if self.strict else None
        request = EventsRequest(_listed(items), top_k, expected_step, list(exclude), end)

        def read(response: httpx.Response) -> SessionAnswer:
            answer = decode(_good(response), SessionAnswer)
            self.step = 0 if end else answer.step
            return answer

        return _post(f"{self._path}/events", request, read, valid_key(key))

    def _peek(self, top_k: int) -> Call[SessionAnswer]:
        return Call(method="GET", path=f"{self._path}/predictions?top_k={top_k}", read=_reader(SessionAnswer))

    def _info(self) -> Call[SessionInfo]:
        return Call(method="GET", path=self._path, read=_reader(SessionInfo))

    def _remove(self, key: str | None) -> Call[None]:
        def read(response: httpx.Response) -> None:
            with suppress(UnknownSessionError):
                _good(response)
            self.step = 0

        return Call(method="DELETE", path=self._path, read=read, key=valid_key(key))

    def _export_state(self) -> Call[bytes]:
        return Call(method="GET", path=f"{self._path}/state", read=_good)

    def _import_state(self, state: bytes, key: str | None) -> Call[SessionInfo]:
        def read(response: httpx.Response) -> SessionInfo:
            info = decode(_good(response), SessionInfo)
            self.step = info.step
            return info

        return Call(
            method="PUT",
            path=f"{self._path}/state",
            read=read,
            content=state,
            content_type="application/octet-stream",
            key=valid_key(key),
        )


def with_key(event: BulkEvent) -> BulkEvent:
    """Return the event, with a random idempotency key if it has none."""
    return event if event.idempotency_key else msgspec.structs.replace(event, idempotency_key=new_key())


class _Outcome(Struct):
    code: str | None = None


def result(message: bytes | msgspec.Raw) -> Result:
    """Decode the result of one event of a bulk request or of a stream."""
    if decode(message, _Outcome).code is None:
        return decode(message, SessionAnswer)
    return refused(decode(message, ProblemBody))


def tagged(outcome: Result, event: BulkEvent) -> Result:
    """Return the outcome; a refusal gets the key of its event."""
    if isinstance(outcome, RefusedError):
        outcome.key = event.idempotency_key
    return outcome


def decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode a JSON body.

    Raises:
        AnswerError: it is not JSON of that type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnswerError(f"The answer is not a {kind.__name__}: {error}.") from error


def _listed(items: Sequence[Item]) -> list[Item]:
    """Return the items as a list. A string is refused: its items would be its letters."""
    if isinstance(items, str):
        raise TypeError(f"The items are the string {shown(items)}; they must be a list.")
    return list(items)


def _post(path: str, request: Struct, read: Callable[[httpx.Response], T], key: str | None = None) -> Call[T]:
    return Call(method="POST", path=path, read=read, content=encode(request), content_type="application/json", key=key)


def _reader(kind: type[T]) -> Callable[[httpx.Response], T]:
    return lambda response: decode(_good(response), kind)


def _good(response: httpx.Response) -> bytes:
    """Return the body of the answer; raise if the answer is a refusal."""
    if response.is_success:
        return response.content
    raise refusal(response.status_code, response.headers, response.content)
