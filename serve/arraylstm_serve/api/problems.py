"""Everything a request can be refused for, and how a refusal looks on the wire (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from arraylstm_serve.api.schemas import ProblemBody

JSON = "application/json"
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One stable kind of refusal: its code never changes, its title says it in words."""

    code: str
    status: int
    title: str

    @property
    def phrase(self) -> str:
        """The status in HTTP's words."""
        return HTTPStatus(self.status).phrase


MALFORMED_REQUEST = Kind("malformed_request", 400, "The request is not HTTP, or its head is too long")
INVALID_JSON = Kind("invalid_json", 400, "The body is not valid JSON")
UNAUTHORIZED = Kind("unauthorized", 401, "A valid API key is needed")
FOREIGN_ORIGIN = Kind("foreign_origin", 403, "The page that asks is of another origin")
UNKNOWN_SESSION = Kind("unknown_session", 404, "No such session is held")
NOT_FOUND = Kind("not_found", 404, "No such resource")
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, "The resource does not know this method")
STEP_CONFLICT = Kind("step_conflict", 409, "The session stands at another step")
MODEL_MISMATCH = Kind("model_mismatch", 409, "The state is another model's")
SESSION_GONE = Kind("session_gone", 410, "The session is no longer held")
REQUEST_TIMEOUT = Kind("request_timeout", 408, "The request did not come in time")
PAYLOAD_TOO_LARGE = Kind("payload_too_large", 413, "The body is too large")
INVALID_REQUEST = Kind("invalid_request", 422, "The request does not fit the schema")
INVALID_SESSION_ID = Kind("invalid_session_id", 422, "The session id is malformed")
UNKNOWN_ITEM = Kind("unknown_item", 422, "The model does not know this item")
IDEMPOTENCY_KEY_REUSED = Kind("idempotency_key_reused", 422, "The idempotency key belongs to another request")
INVALID_STATE = Kind("invalid_state", 422, "The state is not one of this model's")
UPGRADE_REQUIRED = Kind("upgrade_required", 426, "The resource is a WebSocket")
SESSION_BUSY = Kind("session_busy", 429, "Too many requests are pending for this session")
INTERNAL = Kind("internal", 500, "The server failed")
OVERLOADED = Kind("overloaded", 503, "Too many requests are pending")
CAPACITY = Kind("capacity", 503, "Every session slot is busy")
DEADLINE_EXCEEDED = Kind("deadline_exceeded", 503, "The request waited too long and was not applied")
STOPPING = Kind("stopping", 503, "The server is stopping")


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A refused request.

    Args:
        kind: what went wrong, in kind.
        detail: what went wrong this time: the value seen and the value allowed.
        headers: further HTTP headers of the answer.
        session_id: the session concerned.
        step: where that session stands.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        session_id: str | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.session_id = session_id
        self.step = step

    def body(self) -> bytes:
        """The problem as JSON."""
        return msgspec.json.encode(
            ProblemBody(
                type=f"urn:arraylstm:problem:{self.kind.code}",
                title=self.kind.title,
                status=self.kind.status,
                detail=self.detail,
                code=self.kind.code,
                session_id=msgspec.UNSET if self.session_id is None else self.session_id,
                step=msgspec.UNSET if self.step is None else self.step,
            )
        )


def retry_later(kind: Kind, detail: str, seconds: int = 1, session_id: str | None = None) -> Problem:
    """A refusal that the client should answer by trying again after some seconds."""
    return Problem(kind, detail, headers={"Retry-After": str(seconds)}, session_id=session_id)


def late() -> Problem:
    """A refusal of a request that has waited beyond its deadline."""
    return retry_later(
        DEADLINE_EXCEEDED, "The request waited longer than --request-timeout allows; it was not applied."
    )


def plain_id(key: str) -> str:
    """A session's id as its client knows it, without the namespace."""
    return key.rpartition("/")[2]


def internal(detail: str = "The request failed inside the server; its log has the cause.") -> Problem:
    """A failure whose cause stays in the server's log."""
    return Problem(INTERNAL, detail)


def stopping() -> Problem:
    """A refusal by a server that ends before the request does."""
    return retry_later(STOPPING, "The server stopped before the request was answered; it may have been applied.")
