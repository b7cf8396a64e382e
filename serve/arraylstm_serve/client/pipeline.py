"""What a stream has sent and not been answered, so that a new connection can send it again."""

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
"""Events that may await their answers; of one session as many as it remembers idempotency keys."""
LOST = (ConnectionClosed, InvalidHandshake, OSError)
"""How websockets says that no connection is to be had or held."""


@dataclass(frozen=True)
class Line:
    """How to connect a stream.

    Attributes:
        url: of the WebSocket.
        headers: of its handshake.
        timeout: seconds that a try to connect, or an answer, may take.
        retries: how often and how patiently to try.
    """

    url: str
    headers: dict[str, str]
    timeout: float
    retries: Retries

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of connect; answers of any size and number are taken in: it is the window that bounds them."""
        return {
            "additional_headers": self.headers,
            "open_timeout": self.timeout,
            "close_timeout": 1,
            "compression": None,
            "max_size": None,
            "max_queue": None,
        }


class Pipeline:
    """The events that await their answers, and the results that nobody has asked for yet, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[BulkEvent] = deque()
        self._numbers: Counter[str] = Counter()
        self._kept: deque[Result] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._kept)

    def is_full(self, session_id: str) -> bool:
        """Whether an answer has to come before a further event of a session may be sent."""
        return len(self._waiting) >= WINDOW or self._numbers[session_id] >= KEYS_REMEMBERED

    def add(self, event: BulkEvent) -> bytes:
        """Await the answer to an event; the message that sends it."""
        keyed = with_key(event)
        self._waiting.append(keyed)
        self._numbers[keyed.session_id] += 1
        return encode(keyed)

    def take(self, message: bytes) -> Result:
        """The result of the oldest event.

        Raises:
            AnswerError: the message is no answer to it.
        """
        event, outcome = self._waiting[0], result(message)
        if outcome.session_id not in (None, event.session_id):
            raise AnswerError(f"Session {event.session_id} was to be answered, not {outcome.session_id}.")
        self._waiting.popleft()
        self._numbers[event.session_id] -= 1
        if not self._numbers[event.session_id]:
            del self._numbers[event.session_id]
        return tagged(outcome, event)

    def keep(self, outcome: Result) -> None:
        """Keep a result that came before it was asked for."""
        self._kept.append(outcome)

    def kept(self) -> Result | None:
        """The next result if it was kept, None if it has to be awaited.

        Raises:
            LookupError: there is nothing to await.
        """
        if not self:
            raise LookupError("Every event that was sent has its result.")
        return self._kept.popleft() if self._kept else None

    def unanswered(self) -> list[BulkEvent]:
        """The events that await their answers, each under its key."""
        return list(self._waiting)

    def messages(self) -> list[bytes]:
        """What a new connection has to send first."""
        return [encode(event) for event in self._waiting]


def failure(error: Exception) -> ClientError:
    """What the loss of a connection is to the caller."""
    if isinstance(error, InvalidStatus):
        return refusal(error.response.status_code, error.response.headers, bytes(error.response.body or b""))
    failed = UnreachableError(f"The stream got no answer: {described(error)}")
    failed.__cause__ = error
    return failed
