"""The reasons to refuse a request, and the form of a refusal (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from arraylstm_serve.api.schemas import ProblemBody
from arraylstm_serve.text import shown

JSON = "application/json"
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A reason to refuse a request. Its code never changes; its title says it in words."""

    code: str
    status: int
    title: str

    @property
    def phrase(self) -> str:
        """The name that HTTP has for the status."""
        return HTTPStatus(self.status).phrase


MALFORMED_REQUEST = Kind("malformed_request", 400, "The request is not HTTP, or its head is too long")
INVALID_JSON = Kind("invalid_json", 400, "The body is not valid JSON")
UNAUTHORIZED = Kind("unauthorized", 401, "A valid API key is needed")
FORBIDDEN = Kind("forbidden", 403, "The scope of the API key does not allow this")
FOREIGN_ORIGIN = Kind("foreign_origin", 403, "The page belongs to another origin")
UNKNOWN_SESSION = Kind("unknown_session", 404, "The server does not have this session")
NOT_FOUND = Kind("not_found", 404, "No such resource")
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, "The resource does not support this method")
STEP_CONFLICT = Kind("step_conflict", 409, "The session is at another step")
MODEL_MISMATCH = Kind("model_mismatch", 409, "The state belongs to another model")
SESSION_GONE = Kind("session_gone", 410, "The server no longer has the session")
FOREIGN_HOST = Kind("foreign_host", 421, "The server does not go by this host name")
REQUEST_TIMEOUT = Kind("request_timeout", 408, "The request did not arrive in time")
PAYLOAD_TOO_LARGE = Kind("payload_too_large", 413, "The body is too large")
INVALID_REQUEST = Kind("invalid_request", 422, "The request does not match the schema")
INVALID_SESSION_ID = Kind("invalid_session_id", 422, "The session id is not valid")
UNKNOWN_ITEM = Kind("unknown_item", 422, "The model does not know this item")
IDEMPOTENCY_KEY_REUSED = Kind("idempotency_key_reused", 422, "The idempotency key belongs to another request")
INVALID_STATE = Kind("invalid_state", 422, "The state does not fit this model")
UNSUPPORTED_ENCODING = Kind("unsupported_encoding", 415, "The server cannot decompress the body")
UPGRADE_REQUIRED = Kind("upgrade_required", 426, "The resource is a WebSocket")
SESSION_BUSY = Kind("session_busy", 429, "Too many requests are pending for this session")
RATE_LIMITED = Kind("rate_limited", 429, "The client sends too many requests a second")
SESSION_REWOUND = Kind("session_rewound", 409, "The session store has lost steps of the session")
SESSION_DAMAGED = Kind("session_damaged", 500, "The session's record in the store cannot be read")
STORE_UNAVAILABLE = Kind("store_unavailable", 503, "The session store cannot be used")
BACKUP_FAILED = Kind("backup_failed", 409, "The backup cannot be made")
INTERNAL = Kind("internal", 500, "The server failed")
OVERLOADED = Kind("overloaded", 503, "Too many requests are pending")
CAPACITY = Kind("capacity", 503, "Every session slot is busy")
DEADLINE_EXCEEDED = Kind("deadline_exceeded", 503, "The request waited too long and was not applied")
STOPPING = Kind("stopping", 503, "The server is stopping")


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """The refusal of a request.

    Args:
        kind: the reason.
        detail: what is wrong with this request: the value seen and the value allowed.
        headers: further HTTP headers of the answer.
        session_id: the session concerned.
        step: the step that the session is at.
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
    """Make a refusal that tells the client to try again after some seconds."""
    return Problem(kind, detail, headers={"Retry-After": str(seconds)}, session_id=session_id)


def late() -> Problem:
    """Make the refusal of a request that has waited beyond its deadline."""
    return retry_later(
        DEADLINE_EXCEEDED, "The request waited longer than --request-timeout allows; it was not applied."
    )


def not_allowed(method: str, path: str, allowed: str) -> Problem:
    """Make the refusal of a method.

    Args:
        method: the method.
        path: the path asked for.
        allowed: the methods that it has, with commas between.
    """
    detail = f"{method} is not allowed for {shown(path)}; allowed: {allowed}."
    return Problem(METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})


def internal(detail: str = "The request failed inside the server; its log has the cause.") -> Problem:
    """Make the refusal for an error inside the server; only its log has the cause."""
    return Problem(INTERNAL, detail)


def stopping() -> Problem:
    """Make the refusal of a request that is not finished when the server stops."""
    return retry_later(STOPPING, "The server stopped before the request was answered; it may have been applied.")
