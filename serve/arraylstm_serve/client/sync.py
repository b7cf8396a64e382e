"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any, Self, TypeVar

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from arraylstm_serve.api.schemas import BulkEvent, Health, Item, PredictAnswer, SessionAnswer, SessionInfo
from arraylstm_serve.client import calls, pipeline
from arraylstm_serve.client.calls import Call, Result, SessionCore
from arraylstm_serve.client.core import ClientCore
from arraylstm_serve.client.errors import ClientError
from arraylstm_serve.client.pipeline import Line, Pipeline
from arraylstm_serve.client.retries import Retries

T = TypeVar("T")


class Client(ClientCore):
    """Calls a server and waits for the answers; threads may share it.

    A call is tried again while it gets no answer, or 429, 502, 503 or 504; this never applies anything twice.
    Every call may raise UnreachableError, RefusedError or AnswerError.

    Args:
        url: such as `http://localhost:8080`; with a path if a gateway has the server under one.
        api_key: sent with every request.
        timeout: seconds that one try may wait: to connect, to send, or for the next bytes of an answer.
        retries: how often to try, and how long to wait in between.
        http: sends the requests, with its own proxies, certificates or transport; the caller closes it. Streams do
            not use it.

    Raises:
        ValueError: the URL is not one of HTTP.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: Retries = Retries(),
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout, retries)
        self._http = http or httpx.Client()
        self._owned = http is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self._http.close()

    def session(self, session_id: str, step: int | None = None, *, strict: bool = True) -> Session:
        """Return a session; nothing is sent yet.

        Args:
            session_id: its id, 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -, but neither . nor ..
            step: the step it must be at, 0 for one that has not begun. None takes the step from the first answer;
                until then only the last 16 keys that the server remembers make retries safe.
            strict: False lets others use the session too: events apply at whatever step it is.

        Raises:
            ValueError: the id is not valid.
        """
        return Session(self, session_id, step, strict)

    def predict(self, items: Sequence[Item], top_k: int = 10, exclude: Sequence[Item] = ()) -> PredictAnswer:
        """The predictions after a whole history, without a session."""
        return self.perform(calls.predict(items, top_k, exclude))

    def send_many(self, events: Sequence[BulkEvent]) -> list[Result]:
        """Send events of many sessions in one request; those of one session apply in the order listed.

        The refusal of an event is its result, it is not raised. If it is `passing`, the server has refused the later
        events of its session too: send all of them again, each with the `key` of its refusal.

        Raises:
            ValueError: a session has more events without expected_step than it remembers keys.
        """
        return self.perform(calls.send_many(events))

    def stream(self) -> Stream:
        """Return a connection for events of many sessions, sent without waiting for answers; enter it to connect."""
        return Stream(self._line)

    def model(self) -> dict[str, Any]:
        """The manifest of the model served."""
        return self.perform(calls.model())

    def health(self) -> Health:
        """Check that the server is alive."""
        return self.perform(calls.health())

    def ready(self) -> bool:
        """Whether the server is ready for requests."""
        return self.perform(calls.ready())

    def perform(self, call: Call[T]) -> T:
        """Try a call until it is answered or no tries are left."""
        for tried in count(1):
            try:
                return call.read(
                    self._http.request(
                        call.method,
                        self._url + call.path,
                        content=call.content,
                        headers={**self._headers, **call.headers},
                        timeout=self._timeout,
                    )
                )
            except (ClientError, *calls.LOST) as error:
                pause = self._retries.pause(tried, call.failure(error))
            time.sleep(pause)
        raise AssertionError  # count has no end


class Session(SessionCore):
    """A session, made by `Client.session`; use it for one call at a time."""

    def __init__(self, client: Client, session_id: str, step: int | None, strict: bool) -> None:
        super().__init__(session_id, step, strict)
        self._client = client

    def send(
        self,
        items: Sequence[Item],
        top_k: int = 10,
        exclude: Sequence[Item] = (),
        *,
        end: bool = False,
        key: str | None = None,
    ) -> SessionAnswer:
        """Tell the session the items it has just seen.

        Args:
            items: at least one, oldest first.
            top_k: how many predictions to get.
            exclude: items to leave out of them.
            end: whether the session ends with these items.
            key: the idempotency key; after an UnreachableError, send the same again with its `key`.

        Raises:
            StepConflictError: the session is not at `step`.
            SessionGoneError: the server no longer has it.
        """
        return self._client.perform(self._send(items, top_k, exclude, end, key))

    def peek(self, top_k: int = 10) -> SessionAnswer:
        """Return the predictions without changing the session.

        Raises:
            UnknownSessionError: the server does not have it.
        """
        return self._client.perform(self._peek(top_k))

    def info(self) -> SessionInfo:
        """Return the session's step, times and last items.

        Raises:
            UnknownSessionError: the server does not have it.
        """
        return self._client.perform(self._info())

    def remove(self, *, key: str | None = None) -> None:
        """Delete the session; nothing happens if the server does not have it.

        Args:
            key: see `send`.
        """
        self._client.perform(self._remove(key))

    def export_state(self) -> bytes:
        """Return the session as a safetensors file, to keep or to give to another server with the same model.

        Raises:
            UnknownSessionError: the server does not have it.
        """
        return self._client.perform(self._export_state())

    def import_state(self, state: bytes, *, key: str | None = None) -> SessionInfo:
        """Begin or replace the session with a file from `export_state`, of this session or another.

        Args:
            state: the file.
            key: see `send`.
        """
        return self._client.perform(self._import_state(state, key))


class Stream:
    """A connection for events of many sessions; results come in the order of the events. One thread may use it.

    A lost connection is opened again, and the events without an answer are sent again with their keys. Give an event
    its `expected_step` if it must not apply after an earlier event of its session was refused.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._pipeline = Pipeline()
        self._connection: ClientConnection | None = None
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        self._persist(self._connect)
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def __iter__(self) -> Iterator[Result]:
        """Iterate over the results of the events sent, until none is left."""
        while self._pipeline:
            yield self.receive()

    @property
    def unanswered(self) -> list[BulkEvent]:
        """The events without a result yet, with their idempotency keys."""
        return self._pipeline.unanswered()

    def send(self, event: BulkEvent) -> None:
        """Send an event. Wait for a result only if too many are missing.

        Raises:
            UnreachableError: it had to wait, and cannot connect.
        """
        while self._pipeline.is_full(event.session_id):
            self._pipeline.keep(self._persist(self._read))
        message = self._pipeline.add(event)
        if self._connection is not None:
            try:
                self._connection.send(message)
            except ConnectionClosed:
                pass  # the next read notices it, and a new connection sends the message again
            except BaseException:
                self._drop()
                raise

    def receive(self) -> Result:
        """Return the next result: an answer, or a refusal, which does not end the stream.

        Raises:
            LookupError: every event sent has its result already.
            UnreachableError: it cannot connect; `receive` may be called again.
        """
        kept = self._pipeline.kept()
        return self._persist(self._read) if kept is None else kept

    def _read(self) -> Result:
        connection = self._connection or self._connect()
        return self._pipeline.take(connection.recv(self._line.timeout, decode=False))

    def _connect(self) -> ClientConnection:
        with ExitStack() as opened:
            connection: ClientConnection = opened.enter_context(connect(self._line.url, **self._line.options))
            for message in self._pipeline.messages():
                connection.send(message)
            self._opened, self._connection = opened.pop_all(), connection
        return connection

    def _persist(self, act: Callable[[], T]) -> T:
        for tried in count(1):
            try:
                return act()
            except pipeline.LOST as error:
                self._drop()
                pause = self._line.retries.pause(tried, pipeline.failure(error))
            except ClientError:
                self._drop()
                raise
            time.sleep(pause)
        raise AssertionError  # count has no end

    def _drop(self) -> None:
        opened, self._opened, self._connection = self._opened, ExitStack(), None
        opened.close()
