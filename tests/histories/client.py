"""A client that records what it asks and what comes of it, over HTTP and WebSockets."""

from __future__ import annotations

import base64
from asyncio import wait_for
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import httpx
import msgspec
import websockets.asyncio.client as websockets
from msgspec import Raw
from websockets.exceptions import WebSocketException

from .history import Ask, Known, Outcome, Recorder

PROBLEM = "urn:arraylstm:problem:"
PATHS = {
    "advance": ("POST", "/events"),
    "predictions": ("GET", "/predictions"),
    "inspect": ("GET", ""),
    "delete": ("DELETE", ""),
    "save": ("GET", "/state"),
    "restore": ("PUT", "/state"),
}


class Event(NamedTuple):
    """A call that is to be sent."""

    session: str
    ask: Ask
    key: str | None = None


class Results(msgspec.Struct):
    """The answer to a bulk request."""

    results: list[Raw]


class Client:
    """Sends calls to one or several servers, in turn, and records them.

    Args:
        recorder: records the calls.
        urls: the servers, such as `http://127.0.0.1:8080`.
        timeout: how many seconds to wait for an answer.
    """

    def __init__(self, recorder: Recorder, urls: Sequence[str], timeout: float) -> None:
        self._recorder = recorder
        self._urls = [url.rstrip("/") for url in urls]
        self._timeout = timeout
        self._turns = count()
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def single(self, event: Event) -> Outcome:
        """Send a call as a request of its own."""
        server = self._server()
        session, ask, key = event
        method, path = PATHS[ask.do]
        call = self._recorder.sent(session, ask, key, "single", self._recorder.channel(), server)
        options: dict[str, Any] = {"headers": {"Idempotency-Key": key} if key else {}}
        if ask.do == "advance":
            options["content"] = msgspec.json.encode(_body(ask))
        elif ask.do == "restore":
            options["content"] = base64.b64decode(ask.file)
        elif ask.do == "predictions":
            options["params"] = {"top_k": ask.top_k}
        url = f"{self._urls[server]}/v1/sessions/{session}{path}"
        try:
            response = await self._http.request(method, url, **options)
        except httpx.HTTPError as error:
            return self._recorder.outcome(call, *_unanswered(error))
        body = response.content
        text = base64.b64encode(body).decode() if ask.do == "save" and response.is_success else _text(body)
        return self._recorder.outcome(call, *_judged(response.status_code, text))

    async def bulk(self, events: Sequence[Event]) -> list[Outcome]:
        """Send events in one bulk request."""
        server, channel = self._server(), self._recorder.channel()
        calls = [self._recorder.sent(*event, "bulk", channel, server) for event in events]
        body = msgspec.json.encode({"events": [_message(event) for event in events]})
        try:
            response = await self._http.post(f"{self._urls[server]}/v1/events", content=body)
            results = msgspec.json.decode(response.content, type=Results).results if response.is_success else None
        except httpx.HTTPError as error:
            return [self._recorder.outcome(call, *_unanswered(error)) for call in calls]
        except msgspec.MsgspecError:
            results = []
        if results is None:
            judged = [_judged(response.status_code, _text(response.content))] * len(calls)
        else:  # a result that is not there is an empty answer, which no checker takes
            texts = [_text(bytes(result)) for result in results] + [""] * len(calls)
            judged = [_judged(*_result(text)) for text, _ in zip(texts, calls)]
        return [self._recorder.outcome(call, *outcome) for call, outcome in zip(calls, judged)]

    async def stream(self, events: Sequence[Event]) -> list[Outcome]:
        """Send events over one WebSocket, all before the first answer is read; those not sent have no outcome."""
        server, channel = self._server(), self._recorder.channel()
        url = self._urls[server].replace("http", "ws", 1) + "/v1/stream"
        calls: list[int] = []
        outcomes: list[Outcome] = []
        why = ""
        try:
            async with websockets.connect(
                url, proxy=None, open_timeout=self._timeout, close_timeout=1, max_size=None
            ) as stream:
                for event in events:
                    calls.append(self._recorder.sent(*event, "stream", channel, server))
                    await stream.send(msgspec.json.encode(_message(event)).decode())
                for call in calls:
                    text = _text(await wait_for(stream.recv(decode=False), self._timeout))
                    outcomes.append(self._recorder.outcome(call, *_judged(*_result(text))))
        except (OSError, WebSocketException, TimeoutError) as error:
            why = f"{type(error).__name__}: {error}"
        unanswered = calls[len(outcomes) :]
        return outcomes + [self._recorder.outcome(call, "unknown", 0, "", why) for call in unanswered]

    def _server(self) -> int:
        return next(self._turns) % len(self._urls)


def _body(ask: Ask) -> dict[str, Any]:
    """Return the body of an event; what has its default is left out."""
    fields = {name: value for name, value in msgspec.to_builtins(ask).items() if name not in ("do", "top_k")}
    return fields | {"top_k": ask.top_k}


def _message(event: Event) -> dict[str, Any]:
    """Return an event of a bulk request or a stream."""
    key = {} if event.key is None else {"idempotency_key": event.key}
    return _body(event.ask) | key | {"session_id": event.session}


def _text(body: bytes) -> str:
    return body.decode(errors="backslashreplace")


def _result(text: str) -> tuple[int, str]:
    """Return the status and text of an answer in a bulk answer or a stream."""
    status = _fields(text).get("status", 200)
    return (status if isinstance(status, int) else 200), text


def _judged(status: int, text: str) -> tuple[Known, int, str, str]:
    """Return what an answer makes of a call: only the server's own refusals say that it was not applied."""
    if 200 <= status < 300:
        return "ok", status, text, ""
    if not str(_fields(text).get("type")).startswith(PROBLEM):
        return "unknown", status, text, "the refusal is not the server's own"
    if _fields(text).get("code") == "stopping":
        return "unknown", status, text, "the server stopped"
    return "refused", status, text, ""


def _unanswered(error: httpx.HTTPError) -> tuple[Known, int, str, str]:
    """Return what an error makes of a call: one that has had no connection was not sent."""
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return "refused" if unsent else "unknown", 0, "", f"{type(error).__name__}: {error}"


def _fields(text: str) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return content if isinstance(content, dict) else {}
