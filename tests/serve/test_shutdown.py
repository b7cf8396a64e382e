"""Promise 5: SIGTERM stops accepting, finishes what is in flight, exits 0, whatever the load."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..servers import Start


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
        with httpx.Client(base_url=self.url) as client:
            while True:
                try:
                    response = client.post(f"/v1/sessions/{name}/events", json={"items": ["a"] * 50})
                except httpx.ConnectError:  # nobody listens any more
                    return
                except httpx.TransportError as error:  # a kept connection was closed under the request
                    self.odd.append(repr(error))
                    return
                if response.status_code != 200:
                    self.odd.append(response.text)
                    return
                answers.append(response.json())
                if len(answers) == 3:
                    self.busy.set()


def test_a_stop_under_load_loses_no_answer(start_server: Start) -> None:
    """Told to stop amid a storm, the server answers all that it began, one step after the other, and exits 0.

    Without the wait for what is in flight, requests would be cut off, or answered 503 `stopping`.
    """
    server = start_server()
    clients = Clients(server.url, 12)
    assert clients.busy.wait(30)
    server.process.terminate()
    for thread in clients.threads:
        thread.join(30)
    assert server.process.wait(30) == 0
    for answers in clients.answered.values():
        assert [answer["step"] for answer in answers] == [50 * n for n in range(1, len(answers) + 1)]
    # a request that met an idle connection's end was not begun: the server had not read it
    assert not [odd for odd in clients.odd if "stopping" in odd or "internal" in odd]
    assert server.process.communicate()[1] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_is_answered_and_closed_with_1012(start_server: Start, number: signal.Signals) -> None:
    """Messages under way when the server is told to stop are answered, then the stream is closed as restarting.

    Without that, events would be applied whose answers nobody gets.
    """
    server = start_server("--max-items", "100000")
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream", max_size=None) as stream:
        for items in (["a"] * 5_000, ["b"]):
            stream.send(json.dumps({"session_id": "u", "items": items, "top_k": 1}))
        with httpx.Client(base_url=server.url) as client:
            while client.get("/v1/stats").json()["pending"] != 2:
                pass
        server.process.send_signal(number)
        steps = [json.loads(stream.recv())["step"] for _ in range(2)]
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
    assert steps == [5_000, 5_001]
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
