"""Promise 5: SIGTERM stops accepting, finishes what is in flight, exits 0, whatever the load."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from arraylstm_serve.server import process as serving

from ..servers import Start
from ..waiting import until
from .harness import Harness
from .sockets import accepts, rest
from .sockets import connect as connect_raw


class Clients:
    """Threads that post events, a session each, until the server turns them away."""

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self.answered: dict[str, list[dict[str, Any]]] = {f"s{n}": [] for n in range(count)}
        self.odd: list[str] = []
        self.busy = threading.Event()
        self.threads = [threading.Thread(target=self.play, args=(name,)) for name in self.answered]
        for thread in self.threads:
            thread.start()

    def play(self, name: str) -> None:
        """Post until there is nobody to post to."""
        answers = self.answered[name]
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while True:
                try:
                    response = client.post(f"/v1/sessions/{name}/events", json={"items": ["a"] * 50})
                except httpx.TransportError:  # nobody listens any more, or an idle connection was ended
                    return
                if response.status_code != 200:
                    self.odd.append(response.text)
                    return
                answers.append(response.json())
                if len(answers) == 3:
                    self.busy.set()


def test_a_stop_under_load_loses_no_answer(start_server: Start) -> None:
    """Told to stop amid a storm, the server answers all that it began, one step after the other, and exits 0.

    Whatever it began is in its log: with 200, or with the status of what was cut off. A client whose idle connection
    ends under its request cannot tell that from an answer cut off, but the log can: every answer in it was heard.
    """
    server = start_server("--access-log")
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(server.process.stderr or ()))
    reader.start()
    clients = Clients(server.url, 12)
    assert clients.busy.wait(30)
    server.process.terminate()
    for thread in [*clients.threads, reader]:
        thread.join(30)
    assert server.process.wait(30) == 0
    for answers in clients.answered.values():
        assert [answer["step"] for answer in answers] == [50 * n for n in range(1, len(answers) + 1)]
    assert clients.odd == []
    assert [line for line in log if "/events 200 in" not in line] == []
    assert len(log) == sum(map(len, clients.answered.values()))


def test_whatever_is_in_flight_at_the_stop_is_answered(start_server: Start) -> None:
    """Requests that walk when the server is told to stop are answered in full; no connection is cut."""
    server = start_server("--max-items", "100000")
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        body = {"items": ["a"] * 20_000}
        sent = [pool.submit(client.post, f"/v1/sessions/s{n}/events", json=body) for n in range(8)]
        until(lambda: httpx.get(f"{server.url}/v1/stats").json()["pending"] == 8)
        server.process.terminate()
        assert [answer.result().json()["step"] for answer in sent] == [20_000] * 8
    assert server.process.wait(30) == 0
    assert server.process.communicate()[1] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_is_answered_and_closed_with_1012(start_server: Start, number: signal.Signals) -> None:
    """Messages under way when the server is told to stop are answered, then the stream is closed as restarting.

    Without that, events would be applied whose answers nobody gets.
    """
    server = start_server("--max-items", "100000")
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream", max_size=None) as stream:
        for items in (["a"] * 900, ["b"]):
            stream.send(json.dumps({"session_id": "u", "items": items, "top_k": 1}))
        with httpx.Client(base_url=server.url) as client:
            until(lambda: client.get("/v1/stats").json()["pending"] == 2)
        server.process.send_signal(number)
        steps = [json.loads(stream.recv())["step"] for _ in range(2)]
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
    assert steps == [900, 901]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert server.process.wait(30) == 0
    assert server.process.communicate()[1] == ""


def test_an_idle_stream_does_not_keep_the_server(start_server: Start) -> None:
    """A stream on which nothing is under way is closed at once when the server stops."""
    server = start_server()
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as stream:
        server.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert server.process.wait(10) == 0


def test_a_stream_that_does_not_read_does_not_keep_the_server(start_server: Start) -> None:
    """A client that takes no answers is given up after shutdown_timeout, and the exit status is 0 still."""
    server = start_server("--shutdown-timeout", "1")
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream", max_queue=1, close_timeout=0.1) as stream:
        message = json.dumps({"session_id": "u", "items": ["a"] * 1000})
        for _ in range(60):
            stream.send(message)
        server.process.terminate()
        assert server.process.wait(20) == 0
    assert "Traceback" not in server.process.communicate()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_what_is_in_flight(start_server: Start, number: signal.Signals) -> None:
    """Told to stop amid a request, the server accepts no further ones, finishes this one and exits with 0."""
    server = start_server()
    body = b'{"items":["a","b"]}'
    with connect_raw(server) as client:
        head = f"POST /v1/sessions/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:5])
        httpx.get(f"{server.url}/healthz")
        server.process.send_signal(number)
        until(lambda: not accepts(server.port))
        client.sendall(body[5:])
        answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"step":2' in answer
    assert server.process.wait(30) == 0
    assert server.process.communicate()[1] == ""


def test_a_stuck_client_does_not_keep_the_server(start_server: Start) -> None:
    """A request that never ends is given up after shutdown_timeout, and the exit status is 0 still."""
    server = start_server("--shutdown-timeout", "1")
    with connect_raw(server) as client:
        client.sendall(b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        httpx.get(f"{server.url}/healthz")
        server.process.terminate()
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_server_serves_is_heeded(bundle_path: Path, number: signal.Signals) -> None:
    """Told to stop while it loads, the server ends with status 0 and never says that it serves."""
    program = (
        "import os, sys\n"
        "from arraylstm_serve import cli\n"
        "from arraylstm_serve.engine.host import HostEngine\n"
        f"HostEngine.warm_up = lambda *_: os.kill(os.getpid(), {number})\n"
        "sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", program, str(bundle_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_told_to_stop_is_not_ready(harness: Harness, number: signal.Signals) -> None:
    """From the signal on /readyz answers 503 on the connections that are still open."""
    config = uvicorn.Config(harness.app, lifespan="off")
    serving.Server(config, harness.service, "", []).handle_exit(number, None)
    assert (await harness.client.get("/readyz")).status_code == 503


def test_a_second_signal_cuts_requests_off_in_good_order(start_server: Start) -> None:
    """A server told twice to stop answers 503 to what is in flight, prints no traceback, and ends with status 0."""
    process = start_server()
    with connect_raw(process) as client:
        client.sendall(b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        httpx.get(f"{process.url}/healthz")
        for _ in range(2):
            process.process.send_signal(signal.SIGINT)
            until(lambda: not accepts(process.port))
        answer = rest(client)
    assert process.process.wait(30) == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in process.process.communicate()[1]
