"""A client that records what it asks and what comes of it, over HTTP and WebSockets."""

from __future__ import annotations

import base64
from asyncio import wait_for
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

import httpx
import msgspec
import websockets.asyncio.client as websockets
from msgspec import Raw
from websockets.exceptions import WebSocketException

from . import inference
from .history import Ask, Item, Known, Outcome, Recorder, Via

PROBLEM = "urn:arraylstm:problem:"
SESSION = "/v1/sessions/{session}"
PATHS = {
    "advance": ("POST", f"{SESSION}/events"),
    "predictions": ("GET", f"{SESSION}/predictions"),
    "inspect": ("GET", SESSION),
    "delete": ("DELETE", SESSION),
    "save": ("GET", f"{SESSION}/state"),
    "restore": ("PUT", f"{SESSION}/state"),
    "infer": ("POST", inference.PATH),
    "predict": ("POST", "/v1/predict"),
}

Judged = tuple[Known, int, str, str]
"""What became of a call: its outcome, the status, the text of the answer, and why nobody knows more."""


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
        labels: the items that the model knows, in their order.
    """

    def __init__(self, recorder: Recorder, urls: Sequence[str], timeout: float, labels: Sequence[Item] = ()) -> None:
        self._recorder = recorder
        self._labels = labels
        self._sent: dict[int, float] = {}
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
        ask = event.ask
        method, path = PATHS[ask.do]
        call = self._begin(event, "single", self._recorder.channel(), server)
        url = self._urls[server] + path.format(session=event.session)
        try:
            response = await self._http.request(method, url, **self._options(event))
        except httpx.HTTPError as error:
            return self._end(call, _unanswered(error))
        body = response.content
        text = base64.b64encode(body).decode() if ask.do == "save" and response.is_success else _text(body)
        judged = _judged(response.status_code, text, of_v2=ask.do == "infer")
        return self._end(call, judged, response.headers.get("Retry-After", ""))

    def _options(self, event: Event) -> dict[str, Any]:
        """Return what a request has besides its path."""
        session, ask, key = event
        options: dict[str, Any] = {"headers": {"Idempotency-Key": key} if key else {}}
        if ask.do == "advance":
            options["content"] = msgspec.json.encode(_body(ask))
        elif ask.do == "restore":
            options["content"] = base64.b64decode(ask.file)
        elif ask.do == "predictions":
            options["params"] = {"top_k": ask.top_k}
        elif ask.do == "infer":
            options["content"] = inference.body_of(session, ask, self._labels)
        elif ask.do == "predict":
            content = {"items": ask.items, "top_k": ask.top_k, "exclude": ask.exclude}
            options["content"] = msgspec.json.encode(content)
        return options

    async def bulk(self, events: Sequence[Event]) -> list[Outcome]:
        """Send events in one bulk request."""
        server, channel = self._server(), self._recorder.channel()
        calls = [self._begin(event, "bulk", channel, server) for event in events]
        body = msgspec.json.encode({"events": [_message(event) for event in events]})
        try:
            response = await self._http.post(f"{self._urls[server]}/v1/events", content=body)
            results = msgspec.json.decode(response.content, type=Results).results if response.is_success else None
        except httpx.HTTPError as error:
            return [self._end(call, _unanswered(error)) for call in calls]
        except msgspec.MsgspecError:
            results = []
        if results is None:
            judged = [_judged(response.status_code, _text(response.content))] * len(calls)
        else:  # a result that is not there is an empty answer, which no checker takes
            texts = [_text(bytes(result)) for result in results] + [""] * len(calls)
            judged = [_judged(*_result(text)) for text, _ in zip(texts, calls)]
        later = response.headers.get("Retry-After", "")
        return [self._end(call, outcome, later) for call, outcome in zip(calls, judged)]

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
                    calls.append(self._begin(event, "stream", channel, server))
                    await stream.send(msgspec.json.encode(_message(event)).decode())
                for call in calls:
                    text = _text(await wait_for(stream.recv(decode=False), self._timeout))
                    outcomes.append(self._end(call, _judged(*_result(text))))
        except (OSError, WebSocketException, TimeoutError) as error:
            why = f"{type(error).__name__}: {error}"
        unanswered = calls[len(outcomes) :]
        return outcomes + [self._end(call, ("unknown", 0, "", why)) for call in unanswered]

    def _begin(self, event: Event, via: Via, channel: int, server: int) -> int:
        """Record that a call is about to be sent; return its number."""
        call = self._recorder.sent(*event, via, channel, server)
        self._sent[call] = monotonic()
        return call

    def _end(self, call: int, judged: Judged, retry_after: str = "") -> Outcome:
        """Record what came of a call."""
        seconds = round(monotonic() - self._sent.pop(call), 3)
        return self._recorder.outcome(Outcome(call, *judged, seconds, retry_after))

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


def _judged(status: int, text: str, *, of_v2: bool = False) -> Judged:
    """Return what an answer makes of a call: only the server's own refusals say that it was not applied."""
    if 200 <= status < 300:
        return "ok", status, text, ""
    fields = _fields(text)
    if not (inference.is_refusal(fields) if of_v2 else str(fields.get("type")).startswith(PROBLEM)):
        return "unknown", status, text, "the refusal is not the server's own"
    if "may have been applied" in str(fields.get("error" if of_v2 else "detail")):
        return "unknown", status, text, "the refusal says that it may have been applied"
    return "refused", status, text, ""


def _unanswered(error: httpx.HTTPError) -> Judged:
    """Return what an error makes of a call: one that has had no connection was not sent."""
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return "refused" if unsent else "unknown", 0, "", f"{type(error).__name__}: {error}"


def _fields(text: str) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return content if isinstance(content, dict) else {}
