"""Everything a call can end in but its answer."""

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
"""Statuses that a later try may not meet; a gateway before the server gives 502 and 504 for the server's absence."""


class ClientError(Exception):
    """A call that got no answer of its kind.

    Attributes:
        passing: whether the same call may succeed later.
        retry_after: seconds to wait before it may, where the server said so.
        key: the idempotency key that the call carried; sending the same again under it cannot apply it twice.
    """

    passing = False
    retry_after: float | None = None
    key: str | None = None


class UnreachableError(ClientError):
    """No answer came, on any try; what was sent may have been applied or not."""

    passing = True


class AnswerError(ClientError):
    """What answered is not arraylstm-serve, or not a version that this client understands."""


class RefusedError(ClientError):
    """The server refused (RFC 9457).

    Args:
        problem: what the server said.
        retry_after: seconds after which it invites another try.

    Attributes:
        status: the HTTP status.
        code: the stable name of the reason, empty where something between, such as a gateway, refused.
        detail: the reason in words.
        session_id: the session concerned, if one is.
        step: where that session stands, if the server said so.
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
    """The session stands at `step`, not where the call expected it: others moved it, or the call was applied before."""


class SessionGoneError(RefusedError):
    """The server does not have the session any more, which the call expected beyond its beginning."""


class UnknownSessionError(RefusedError):
    """The server does not have the session."""


KINDS = {
    STEP_CONFLICT.code: StepConflictError,
    SESSION_GONE.code: SessionGoneError,
    UNKNOWN_SESSION.code: UnknownSessionError,
}


def refused(problem: ProblemBody, retry_after: float | None = None) -> RefusedError:
    """The error that a problem is."""
    return KINDS.get(problem.code, RefusedError)(problem, retry_after)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> RefusedError:
    """The error that an HTTP answer is, a problem or not."""
    try:
        problem = msgspec.json.decode(body, type=ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Refused"
        detail = f"HTTP {status} {title}: {shortened(body.decode(errors='replace'), 200)}"
        problem = ProblemBody(type="about:blank", title=title, status=status, detail=detail, code="")
    return refused(problem, seconds(headers.get("Retry-After")))


def seconds(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After header says, a number or a date; None for none that can be read."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a time zone
        return None
