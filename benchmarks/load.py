"""Load for the servers: closed loops by wrk, open loops over keep-alive sockets, and WebSocket streams.

Any answer other than 200 ends the run, since its time would mean nothing.
"""

import json
import re
import select
import socket
import subprocess
import tempfile
from asyncio import gather, sleep
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from time import perf_counter, process_time
from typing import Protocol

import numpy as np
import uvloop
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from servers import HOST, Server

_SCRIPT = Path(__file__).with_suffix(".lua")
_TIMEOUT = 10  # seconds that an answer may take
_SPIN = 1e-3  # seconds before a request is due in which its client does not sleep, as epoll counts in milliseconds
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"^transfer-encoding: *chunked", re.IGNORECASE | re.MULTILINE)
_SETTLING = 0.5  # seconds of a stream that are not counted


class Target(Protocol):
    """What wrk is pointed at: a server, or several behind a balancer."""

    name: str
    port: int

    @property
    def cpu_seconds(self) -> float:
        """CPU time that its processes have taken."""


class LoadError(Exception):
    """A server refused, closed the connection, or sent an answer that was not understood."""


class NotThereError(LoadError):
    """A server does not have the path that was asked for."""


@dataclass(frozen=True)
class Load:
    """The result of a run; times are in seconds."""

    rate: float
    """Answers a second."""
    cpu: float
    """CPU time of the server per answer."""
    p50: float = nan
    """Half of the answers took at most this long."""
    p99: float = nan
    p999: float = nan
    client: float = nan
    """Share of its core that the client used; near 1, the client was the bottleneck."""

    @property
    def server(self) -> float:
        """Share of its core that the server used."""
        return self.rate * self.cpu


def post(path: str, document: object) -> bytes:
    """Return a whole request that posts JSON."""
    body = json.dumps(document, separators=(",", ":")).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def get(path: str) -> bytes:
    """Return a whole request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


# -- closed loop --------------------------------------------------------------------------------------------------


def closed_loop(server: Target, requests: Sequence[bytes], connections: int, seconds: float, core: int | str) -> Load:
    """Keep every connection busy with the next request, with wrk on its own core.

    wrk's percentiles correct for the requests that a slow answer kept from being sent.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.writelines(b"%d\n%b" % (len(request), request) for request in requests)
        file.flush()
        before = server.cpu_seconds
        done = subprocess.run(
            _wrk(server.port, file.name, connections, seconds, core), capture_output=True, text=True, check=False
        )
        cpu = server.cpu_seconds - before
    if done.returncode:
        raise LoadError(f"{server.name}: wrk ended with status {done.returncode}: {done.stderr.strip()}")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["refused"] or result["failed"] or not result["answers"]:
        counts = "{answers} answers, {refused} of them refusals, and {failed} failures".format(**result)
        raise LoadError(f"{server.name} gave {counts}")
    percentiles = {name: result[name] for name in ("p50", "p99", "p999")}
    return Load(result["answers"] / result["seconds"], cpu / result["answers"], **percentiles)


def _wrk(port: int, requests: str, connections: int, seconds: float, core: int | str) -> list[str]:
    load = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    script = ["--timeout", f"{_TIMEOUT}s", "--script", str(_SCRIPT), f"http://{HOST}:{port}", "--", requests]
    return ["taskset", "--cpu-list", str(core), "wrk", *load, *script]


def keep_busy(server: Server, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Keep every connection busy with the next request, from this thread.

    It is fast enough for few requests that take long, and needs neither wrk nor a core of its own.
    """
    before, used = server.cpu_seconds, process_time()
    pool = _Pool(server, connections)
    latencies: list[float] = []
    try:
        start = now = perf_counter()
        sent = 0
        while now < start + seconds or len(latencies) < sent:
            while pool.free and now < start + seconds:
                pool.send(requests[sent % len(requests)], now)
                sent += 1
            answered, now = pool.receive(_SPIN)
            latencies += [now - moment for moment in answered]
            if now > start + seconds + _TIMEOUT:
                raise LoadError(f"{server.name} did not answer {sent - len(latencies)} of {sent} requests")
    finally:
        pool.close()
    p50, p99, p999 = np.percentile(latencies, (50, 99, 99.9)).tolist()
    duration = now - start
    cpu = (server.cpu_seconds - before) / sent
    return Load(sent / duration, cpu, p50, p99, p999, (process_time() - used) / duration)


# -- open loop ----------------------------------------------------------------------------------------------------


def open_loop(
    server: Server, requests: Sequence[bytes], rate: float, seconds: float, *, most_connections: int = 256
) -> Load:
    """Send requests at random times (a Poisson process of this rate), without waiting for earlier answers.

    Latency counts from the time when a request was due, so it includes waiting for a free connection or this client.
    """
    source = np.random.default_rng(0)
    due = np.cumsum(source.exponential(1 / rate, max(1, round(rate * seconds)))).tolist()
    before, used = server.cpu_seconds, process_time()
    pool = _Pool(server, max(1, min(most_connections, round(rate))))  # so few that none is idle for long
    latencies: list[float] = []
    try:
        start = perf_counter()
        sent = 0
        while len(latencies) < len(due):
            now = perf_counter() - start
            while pool.free and sent < len(due) and due[sent] <= now:
                pool.send(requests[sent % len(requests)], due[sent])
                sent += 1
            wait = due[sent] - now - _SPIN if sent < len(due) else _SPIN
            answered, arrived = pool.receive(max(0.0, wait))
            latencies += [arrived - start - moment for moment in answered]
            if not answered and arrived - start > due[-1] + _TIMEOUT:
                raise LoadError(f"{server.name} did not answer {len(due) - len(latencies)} of {len(due)} requests")
    finally:
        pool.close()
    duration = perf_counter() - start
    p50, p99, p999 = np.percentile(latencies, (50, 99, 99.9)).tolist()
    cpu = (server.cpu_seconds - before) / len(due)
    return Load(len(due) / duration, cpu, p50, p99, p999, (process_time() - used) / duration)


class _Pool:
    """Keep-alive connections, each with at most one request under way."""

    def __init__(self, server: Server, size: int) -> None:
        self._name = server.name
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._due: dict[int, float] = {}
        for _ in range(size):
            connection = socket.create_connection((HOST, server.port), timeout=_TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)
        self.free = deque(self._sockets)

    def send(self, request: bytes, due: float) -> None:
        """Send a request on a free connection; remember when it was due."""
        number = self.free.popleft()
        self._due[number], self._received[number] = due, b""
        self._sockets[number].sendall(request)

    def receive(self, wait: float) -> tuple[list[float], float]:
        """Return when the requests that are answered by now were due, and the time now."""
        ready = self._poll.poll(wait)
        now = perf_counter()
        answered = []
        for number, _ in ready:
            data = self._received[number] + self._sockets[number].recv(65536)
            if not data:
                raise LoadError(f"{self._name} hung up")
            self._received[number] = data
            if self._is_complete(data):
                answered.append(self._due.pop(number))
                self.free.append(number)
        return answered, now

    def _is_complete(self, data: bytes) -> bool:
        """Tell whether an answer is complete; it must be 200, and have a length or be chunked."""
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank:
            return False
        length, chunked = _LENGTH.search(head), _CHUNKED.search(head)
        if not (length or chunked) or not head.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"{self._name} answered {head.splitlines()[0].decode('latin-1')}")
        return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])

    def close(self) -> None:
        """Close the connections."""
        for connection in self._sockets.values():
            connection.close()
        self._poll.close()


# -- WebSocket ----------------------------------------------------------------------------------------------------


def stream(server: Server, path: str, messages: Sequence[Sequence[bytes]], in_flight: int, seconds: float) -> Load:
    """Open a WebSocket connection for each list of messages, and keep this many of its messages in flight.

    Raises:
        NotThereError: the server accepts no WebSocket connection at this path.
    """
    return uvloop.run(_stream(server, path, messages, in_flight, seconds))


async def _stream(
    server: Server, path: str, messages: Sequence[Sequence[bytes]], in_flight: int, seconds: float
) -> Load:
    url = f"ws://{HOST}:{server.port}{path}"
    talkers = [_Talker(own, in_flight) for own in messages]
    try:
        transports = [(await ws_connect(lambda talker=talker: talker, url))[0] for talker in talkers]
    except WSError as error:
        raise NotThereError(f"WebSocket {path}: {error}") from error
    await sleep(_SETTLING)
    before = _Moment.of(server, talkers)
    await sleep(seconds)
    after = _Moment.of(server, talkers)
    for talker, transport in zip(talkers, transports, strict=True):
        talker.hold = True
        transport.disconnect()
    await gather(*(transport.wait_disconnected() for transport in transports), return_exceptions=True)
    refused = [talker.refusal for talker in talkers if talker.refusal]
    answers, duration = after.answers - before.answers, after.time - before.time
    if refused or not answers:
        raise LoadError(f"{server.name} refused {len(refused)} streams and gave {answers} answers: {refused[:1]}")
    client = (after.client - before.client) / duration
    return Load(answers / duration, (after.server - before.server) / answers, client=client)


@dataclass(frozen=True)
class _Moment:
    """The counters at one moment."""

    time: float
    answers: int
    server: float
    client: float

    @classmethod
    def of(cls, server: Server, talkers: Sequence["_Talker"]) -> "_Moment":
        return cls(perf_counter(), sum(talker.answers for talker in talkers), server.cpu_seconds, process_time())


class _Talker(WSListener):
    """One connection: each answer brings the next message."""

    def __init__(self, messages: Sequence[bytes], in_flight: int) -> None:
        self._messages, self._in_flight = messages, in_flight
        self._turn = self.answers = 0
        self.hold = False
        self.refusal: bytes | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        for _ in range(self._in_flight):
            self._send(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        answer = frame.get_payload_as_bytes()
        if b'"predictions"' not in answer:
            self.hold, self.refusal = True, answer
        if not self.hold:
            self.answers += 1
            self._send(transport)

    def _send(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, self._messages[self._turn])
        self._turn = (self._turn + 1) % len(self._messages)
