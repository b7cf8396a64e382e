"""Long answers are made in pieces, and are the same as short ones; what nobody reads has a bound."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ...servers import ServerProcess
from ...waiting import until_soon
from ..harness import Harness
from ..sockets import connect, more
from ..wide import write_wide_bundle

pytestmark = pytest.mark.anyio

ITEMS = 5000


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of many items."""
    return write_wide_bundle(tmp_path_factory.mktemp("wide") / "bundle", ITEMS)


async def listed(harness: Harness, path: str, **body: Any) -> list[dict[str, Any]]:
    """The predictions of an answer."""
    response = await harness.client.post(path, json=body)
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()["predictions"]
    return found


async def test_a_long_ranking_begins_with_the_short_one(wide: Path) -> None:
    """Predictions do not depend on how many are asked for, by whatever route; excluded items are left out of them."""
    harness = Harness(wide)
    everything = await listed(harness, "/v1/predict", items=[1, 2], top_k=ITEMS)
    assert sorted(entry["item"] for entry in everything) == list(range(ITEMS))
    order = [(-entry["probability"], entry["item"]) for entry in everything]
    assert order == sorted(order)
    assert sum(entry["probability"] for entry in everything) == pytest.approx(1)
    for top_k in (10, 64, 65, 1024, 1025, 4999):
        assert await listed(harness, "/v1/predict", items=[1, 2], top_k=top_k) == everything[:top_k]
        assert await listed(harness, f"/v1/sessions/s{top_k}/events", items=[1, 2], top_k=top_k) == everything[:top_k]
        peek = await harness.client.get(f"/v1/sessions/s{top_k}/predictions?top_k={top_k}")
        assert peek.json()["predictions"] == everything[:top_k]
    exclude = [entry["item"] for entry in everything[:2000:3]]
    kept = [entry for entry in everything if entry["item"] not in exclude]
    assert await listed(harness, "/v1/predict", items=[1, 2], top_k=3000, exclude=exclude) == kept[:3000]
    outputs = [{"name": "predictions"}, {"name": "probabilities"}]
    tensor = {"name": "items", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    inference = {"inputs": [tensor], "outputs": outputs, "parameters": {"top_k": 3000}}
    ids, probabilities = (await harness.client.post("/v2/models/arraylstm/infer", json=inference)).json()["outputs"]
    assert ids["data"] == [entry["item"] for entry in everything[:3000]]
    assert probabilities["data"] == pytest.approx([entry["probability"] for entry in everything[:3000]])


async def test_long_answers_keep_their_order_and_their_keys(wide: Path) -> None:
    """Long and short events of one session apply in order; a repeated key gets the long answer again, byte for byte."""
    harness = Harness(wide)
    answers = await harness.in_order(
        harness.send("u", *[1] * 500, top_k=1),
        harness.send("u", 2, top_k=ITEMS, key="k"),
        harness.send("u", 3, top_k=1),
        harness.send("u", 2, top_k=ITEMS, key="k"),
    )
    assert [answer.json()["step"] for answer in answers] == [500, 501, 502, 501]
    assert answers[1].content == answers[3].content


async def test_others_are_served_between_the_pieces(wide: Path) -> None:
    """While a client's long answers are made, another's events are answered one after the other."""
    harness = Harness(wide)
    long = [asyncio.create_task(harness.send(f"long{n}", 1, top_k=ITEMS)) for n in range(8)]
    await until_soon(lambda: harness.service.pending >= 8)
    served = 0
    while not all(task.done() for task in long):
        assert (await harness.send("short", 1, top_k=1)).status_code == 200
        served += 1
    assert served >= 4


async def test_others_are_served_between_long_inferences(wide: Path) -> None:
    """The scores of all items are a long answer too: another's events are answered between one and the next."""
    harness = Harness(wide)
    tensor = {"name": "items", "shape": [1], "datatype": "INT64", "data": [1]}
    url = "/v2/models/arraylstm/infer"
    answers = [asyncio.create_task(harness.client.post(url, json={"inputs": [tensor]})) for _ in range(16)]
    await until_soon(lambda: harness.service.pending >= 16)
    assert (await harness.send("short", 1, top_k=1)).status_code == 200
    assert not all(task.done() for task in answers)
    first, *others = [response.json()["outputs"][0]["data"] for response in await asyncio.gather(*answers)]
    assert len(first) == ITEMS
    assert others == [first] * 15


async def test_a_bulk_answer_comes_in_pieces(wide: Path) -> None:
    """Its JSON is whole, its results are in order, and a client of HTTP/1.0 gets it in one piece with its length."""
    harness = Harness(wide, max_batch=4)
    events = [{"session_id": f"s{n}", "items": [n], "top_k": 600} for n in range(30)]
    response = await harness.client.post("/v1/events", json={"events": events})
    assert "content-length" not in response.headers
    results = response.json()["results"]
    assert [(result["session_id"], len(result["predictions"])) for result in results] == [
        (f"s{n}", 600) for n in range(30)
    ]


BULK = json.dumps({"events": [{"session_id": f"s{n}", "items": [1], "top_k": 1000} for n in range(100)]}).encode()


def resident(pid: int) -> int:
    """The bytes of memory that a process has resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def test_answers_that_nobody_reads_have_a_bound(wide: Path) -> None:
    """Two hundred clients ask for answers of megabytes and read nothing: memory stays below what the greeting says.

    Without a bound they would take a gigabyte. Another client is served all the while.
    """
    server = ServerProcess(wide, "--max-sessions", "200", "--max-pending", "256", "--max-connections", "256")
    request = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(BULK), BULK)
    try:
        before = resident(server.process.pid)
        most = 0
        with ExitStack() as clients:
            for _ in range(200):
                clients.enter_context(connect(server)).sendall(request)
            for _ in range(20):
                assert httpx.post(f"{server.url}/v1/sessions/me/events", json={"items": [1]}).status_code == 200
                most = max(most, resident(server.process.pid))
        line = next(line for line in server.greeting.splitlines() if line.split()[:1] == ["memory"])
        promised = 1e6 * float(line.split()[3])
        assert most - before < promised < 500e6
    finally:
        server.stop()


def test_who_leaves_most_unread_is_cut_off_first(wide: Path) -> None:
    """Beyond --max-unread-bytes the clients that do not read lose their connections; one that reads gets everything."""
    server = ServerProcess(wide, "--max-unread-bytes", str(2**20), "--max-sessions", "200")
    request = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(BULK), BULK)
    try:
        with ExitStack() as clients:
            mute = [clients.enter_context(connect(server)) for _ in range(40)]
            for client in mute:
                client.sendall(request)
            answer = httpx.post(f"{server.url}/v1/events", content=BULK, timeout=60)
            assert [len(result["predictions"]) for result in answer.json()["results"]] == [1000] * 100
            ended = 0
            for client in mute:
                try:
                    while not more(client).endswith(b"0\r\n\r\n"):
                        pass
                except (AssertionError, ConnectionError):
                    ended += 1
            assert ended
    finally:
        server.stop()
