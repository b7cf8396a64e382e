"""The errors that a call can raise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec
from msgspec import UNSET

from arraylstm_serve.api.problems import SESSION_GONE, STEP_CONFLICT, UNKNOWN_SESSION
from arraylstm_serve.api.schemas import ProblemBody
from arraylstm_serve.text import shortened

PASSING = frozenset({429, 502, 503, 504})
"""Statuses that may pass with time; a gateway answers 502 or 504 while the server behind it is away."""


class ClientError(Exception):
    """A call failed.

    Attributes:
        passing: whether the same call may succeed later.
        retry_after: seconds to wait before it, if the server said so.
        key: the idempotency key of the call; to send the same again with it is safe, nothing is applied twice.
    """

    passing = False
    retry_after: float | None = None
    key: str | None = None


class UnreachableError(ClientError):
    """No try got an answer. What was sent may have been applied, or not."""

    passing = True


class AnswerError(ClientError):
    """Something other than arraylstm-serve answered, or a version that this client does not understand."""


class RefusedError(ClientError):
    """The server refused (RFC 9457).

    Args:
        problem: what the server said.
        retry_after: seconds after which it allows another try.

    Attributes:
        status: the HTTP status.
        code: the stable name of the reason; empty if something in between, such as a gateway, refused.
        detail: the reason in words.
        session_id: the session concerned, if any.
        step: the step that the session is at, if the server said so.
    """

    def __init__(self, problem: ProblemBody, retry_after: float | None = None) -> None:
        super().__init__(f"{problem.code or problem.status}: {problem.detail}")
        self.status = problem.status
        self.code = problem.code
        self.detail = problem.detail
        self.session_id = None if problem.session_id is UNSET else problem.session_id
        self.step = None if problem.step is UNSET else problem.step
        self.passing = problem.status in PASSING
        self.retry_after = retry_after


class StepConflictError(RefusedError):
    """The session is not at the expected step but at `step`: others used it, or the call was applied before."""


class SessionGoneError(RefusedError):
    """The server no longer has the session, which the call expected to have begun."""


class UnknownSessionError(RefusedError):
    """The server does not have the session."""


KINDS = {
    STEP_CONFLICT.code: StepConflictError,
    SESSION_GONE.code: SessionGoneError,
    UNKNOWN_SESSION.code: UnknownSessionError,
}


def refused(problem: ProblemBody, retry_after: float | None = None) -> RefusedError:
    """Return the error for a problem."""
    return KINDS.get(problem.code, RefusedError)(problem, retry_after)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> RefusedError:
    """Return the error for a refusal over HTTP, whether or not its body is a problem."""
    try:
        problem = msgspec.json.decode(body, type=ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Refused"
        detail = f"HTTP {status} {title}: {shortened(body.decode(errors='replace'), 200)}"
        problem = ProblemBody(type="about:blank", title=title, status=status, detail=detail, code="")
    return refused(problem, seconds(headers.get("Retry-After")))


def seconds(retry_after: str | None) -> float | None:
    """Return the seconds in a Retry-After header, a number or a date; None if there is none or it cannot be read."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a time zone
        return None
