"""The asynchronous client: the same operations as in `sync`, awaited."""

from __future__ import annotations

import asyncio
from asyncio import Lock
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Self, TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from arraylstm_serve.api.schemas import BulkEvent, Health, Item, PredictAnswer, SessionAnswer, SessionInfo
from arraylstm_serve.client import calls, pipeline
from arraylstm_serve.client.calls import Call, Result, SessionCore
from arraylstm_serve.client.core import ClientCore
from arraylstm_serve.client.errors import ClientError
from arraylstm_serve.client.pipeline import Line, Pipeline
from arraylstm_serve.client.retries import Retries

T = TypeVar("T")


class AsyncClient(ClientCore):
    """Calls a server from asyncio; arguments and errors are those of `Client`."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: Retries = Retries(),
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout, retries)
        self._http = http or httpx.AsyncClient()
        self._owned = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        if self._owned:
            await self._http.aclose()

    def session(self, session_id: str, step: int | None = None, *, strict: bool = True) -> AsyncSession:
        """See `Client.session`."""
        return AsyncSession(self, session_id, step, strict)

    async def predict(self, items: Sequence[Item], top_k: int = 10, exclude: Sequence[Item] = ()) -> PredictAnswer:
        """See `Client.predict`."""
        return await self.perform(calls.predict(items, top_k, exclude))

    async def send_many(self, events: Sequence[BulkEvent]) -> list[Result]:
        """See `Client.send_many`."""
        return await self.perform(calls.send_many(events))

    def stream(self) -> AsyncStream:
        """See `Client.stream`."""
        return AsyncStream(self._line)

    async def model(self) -> dict[str, Any]:
        """See `Client.model`."""
        return await self.perform(calls.model())

    async def health(self) -> Health:
        """See `Client.health`."""
        return await self.perform(calls.health())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self.perform(calls.ready())

    async def perform(self, call: Call[T]) -> T:
        """See `Client.perform`."""
        for tried in count(1):
            try:
                return call.read(
                    await self._http.request(
                        call.method,
                        self._url + call.path,
                        content=call.content,
                        headers={**self._headers, **call.headers},
                        timeout=self._timeout,
                    )
                )
            except (ClientError, *calls.LOST) as error:
                pause = self._retries.pause(tried, call.failure(error))
            await asyncio.sleep(pause)
        raise AssertionError  # count has no end


class AsyncSession(SessionCore):
    """A session, made by `AsyncClient.session`; see `Session`."""

    def __init__(self, client: AsyncClient, session_id: str, step: int | None, strict: bool) -> None:
        super().__init__(session_id, step, strict)
        self._client = client

    async def send(
        self,
        items: Sequence[Item],
        top_k: int = 10,
        exclude: Sequence[Item] = (),
        *,
        end: bool = False,
        key: str | None = None,
    ) -> SessionAnswer:
        """See `Session.send`."""
        return await self._client.perform(self._send(items, top_k, exclude, end, key))

    async def peek(self, top_k: int = 10) -> SessionAnswer:
        """See `Session.peek`."""
        return await self._client.perform(self._peek(top_k))

    async def info(self) -> SessionInfo:
        """See `Session.info`."""
        return await self._client.perform(self._info())

    async def remove(self, *, key: str | None = None) -> None:
        """See `Session.remove`."""
        await self._client.perform(self._remove(key))

    async def export_state(self) -> bytes:
        """See `Session.export_state`."""
        return await self._client.perform(self._export_state())

    async def import_state(self, state: bytes, *, key: str | None = None) -> SessionInfo:
        """See `Session.import_state`."""
        return await self._client.perform(self._import_state(state, key))


class AsyncStream:
    """See `Stream`; here some tasks may send while others receive.

    There are two locks. `_sending` keeps messages in the order of the pipeline, also while a new connection sends the
    unanswered ones again. `_reading` lets one task at a time wait for an answer. A task that holds `_sending` never
    waits for `_reading`.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._pipeline = Pipeline()
        self._connection: ClientConnection | None = None
        self._opened = AsyncExitStack()
        self._sending = Lock()
        self._reading = Lock()

    async def __aenter__(self) -> Self:
        await self._persist(self._connect)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    async def __aiter__(self) -> AsyncIterator[Result]:
        """See `Stream.__iter__`."""
        while self._pipeline:
            yield await self.receive()

    @property
    def unanswered(self) -> list[BulkEvent]:
        """See `Stream.unanswered`."""
        return self._pipeline.unanswered()

    async def send(self, event: BulkEvent) -> None:
        """See `Stream.send`. If it is cancelled, the event may be sent nevertheless."""
        while not await self._sent(event):
            async with self._reading:
                if self._pipeline.is_full(event.session_id):
                    self._pipeline.keep(await self._persist(self._read))

    async def _sent(self, event: BulkEvent) -> bool:
        """Send the event if there is room for it; return whether there was."""
        async with self._sending:
            if self._pipeline.is_full(event.session_id):
                return False
            message = self._pipeline.add(event)
            if self._connection is not None:
                try:
                    await self._connection.send(message)
                except ConnectionClosed:
                    pass  # the next read notices it, and a new connection sends the message again
                except BaseException:
                    await self._drop()
                    raise
            return True

    async def receive(self) -> Result:
        """See `Stream.receive`."""
        async with self._reading:
            kept = self._pipeline.kept()
            return await self._persist(self._read) if kept is None else kept

    async def _read(self) -> Result:
        connection = self._connection or await self._connect()
        async with asyncio.timeout(self._line.timeout):
            message = await connection.recv(decode=False)
        return self._pipeline.take(message)

    async def _connect(self) -> ClientConnection:
        async with self._sending:
            async with AsyncExitStack() as opened:
                connection = await opened.enter_async_context(connect(self._line.url, **self._line.options))
                for message in self._pipeline.messages():
                    await connection.send(message)
                self._opened, self._connection = opened.pop_all(), connection
            return connection

    async def _persist(self, act: Callable[[], Awaitable[T]]) -> T:
        for tried in count(1):
            try:
                return await act()
            except pipeline.LOST as error:
                await self._drop()
                pause = self._line.retries.pause(tried, pipeline.failure(error))
            except ClientError:
                await self._drop()
                raise
            await asyncio.sleep(pause)
        raise AssertionError  # count has no end

    async def _drop(self) -> None:
        opened, self._opened, self._connection = self._opened, AsyncExitStack(), None
        await opened.aclose()
