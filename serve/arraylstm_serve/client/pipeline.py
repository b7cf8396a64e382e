"""The events of a stream that are not answered yet, so that a new connection can send them again."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from arraylstm_serve.api.schemas import KEYS_REMEMBERED, BulkEvent, encode
from arraylstm_serve.client.calls import Result, described, result, tagged, with_key
from arraylstm_serve.client.errors import AnswerError, ClientError, UnreachableError, refusal
from arraylstm_serve.client.retries import Retries

PATH = "/v1/stream"
WINDOW = 256
"""Most events without an answer. For one session the limit is the number of keys that it remembers."""
LOST = (ConnectionClosed, InvalidHandshake, OSError)
"""The errors by which websockets says that it cannot connect or has lost the connection."""


@dataclass(frozen=True)
class Line:
    """How to connect a stream.

    Attributes:
        url: of the WebSocket.
        headers: of its handshake.
        timeout: most seconds to connect, and to wait for an answer.
        retries: how often to try, and how long to wait in between.
    """

    url: str
    headers: dict[str, str]
    timeout: float
    retries: Retries

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of connect. Answers have no limit of size or number here, because WINDOW bounds them."""
        return {
            "additional_headers": self.headers,
            "open_timeout": self.timeout,
            "close_timeout": 1,
            "compression": None,
            "max_size": None,
            "max_queue": None,
        }


class Pipeline:
    """The events that wait for answers, and the results that nobody has asked for yet, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[BulkEvent] = deque()
        self._numbers: Counter[str] = Counter()
        self._kept: deque[Result] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._kept)

    def is_full(self, session_id: str) -> bool:
        """Whether an answer must arrive before another event of a session may be sent."""
        return len(self._waiting) >= WINDOW or self._numbers[session_id] >= KEYS_REMEMBERED

    def add(self, event: BulkEvent) -> bytes:
        """Add an event to those that wait for answers; return the message that sends it."""
        keyed = with_key(event)
        self._waiting.append(keyed)
        self._numbers[keyed.session_id] += 1
        return encode(keyed)

    def take(self, message: bytes) -> Result:
        """Return the result of the oldest event.

        Raises:
            AnswerError: the message is not an answer to it.
        """
        event, outcome = self._waiting[0], result(message)
        if outcome.session_id not in (None, event.session_id):
            raise AnswerError(
                f"The answer is to session {outcome.session_id}; the next one should be to {event.session_id}."
            )
        self._waiting.popleft()
        self._numbers[event.session_id] -= 1
        if not self._numbers[event.session_id]:
            del self._numbers[event.session_id]
        return tagged(outcome, event)

    def keep(self, outcome: Result) -> None:
        """Keep a result until somebody asks for it."""
        self._kept.append(outcome)

    def kept(self) -> Result | None:
        """Return the next result if it was kept, None if it has not arrived yet.

        Raises:
            LookupError: there is no result to wait for.
        """
        if not self:
            raise LookupError("Every event sent has its result already.")
        return self._kept.popleft() if self._kept else None

    def unanswered(self) -> list[BulkEvent]:
        """Return the events that wait for answers, with their keys."""
        return list(self._waiting)

    def messages(self) -> list[bytes]:
        """Return the messages that a new connection must send first."""
        return [encode(event) for event in self._waiting]


def failure(error: Exception) -> ClientError:
    """Return the error that a lost connection is to the caller."""
    if isinstance(error, InvalidStatus):
        return refusal(error.response.status_code, error.response.headers, bytes(error.response.body or b""))
    failed = UnreachableError(f"The stream got no answer: {described(error)}")
    failed.__cause__ = error
    return failed
