"""What one client does costs another neither its sessions nor its places: of two names, and of two addresses."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from ...servers import ServerProcess, Start
from ..answers import check
from ..harness import Harness
from ..keys import ALICE, BOB, bearer, line, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with the keys of Alice and Bob."""
    return write(tmp_path, line("alice", ALICE) + line("bob", BOB))


def bulk(names: list[str], **fields: object) -> dict[str, object]:
    """A bulk request with an event for each session."""
    return {"events": [{"session_id": name, "items": ["a"], **fields} for name in names]}


async def test_a_flood_of_sessions_costs_nobody_else_any(bundle_path: Path, keys: Path) -> None:
    """After Alice's thousand new sessions all of Bob's go on."""
    harness = Harness(bundle_path, api_keys=keys, max_sessions=200)
    mine = [f"b{n}" for n in range(20)]
    await harness.client.post("/v1/events", json=bulk(mine), headers=bearer(BOB))
    for start in range(0, 1000, 100):
        names = [f"a{n}" for n in range(start, start + 100)]
        await harness.client.post("/v1/events", json=bulk(names), headers=bearer(ALICE))
    again = await harness.client.post("/v1/events", json=bulk(mine, expected_step=1), headers=bearer(BOB))
    assert [result.get("state") for result in again.json()["results"]] == ["continued"] * 20
    assert len(harness.service.sessions) == 200


async def test_busy_sessions_cost_nobody_else_any(bundle_path: Path, keys: Path) -> None:
    """While all of Alice's sessions are busy, none of Bob's goes for them: he holds less than she does."""
    harness = Harness(bundle_path, api_keys=keys, max_sessions=40)
    mine = [f"b{n}" for n in range(15)]
    await harness.client.post("/v1/events", json=bulk(mine), headers=bearer(BOB))
    long = {"items": ["a"] * 200}
    urls = [f"/v1/sessions/a{n}/events" for n in range(40) for _ in range(3)]
    await asyncio.gather(*(harness.client.post(url, json=long, headers=bearer(ALICE)) for url in urls))
    again = await harness.client.post("/v1/events", json=bulk(mine, expected_step=1), headers=bearer(BOB))
    assert [result.get("state") for result in again.json()["results"]] == ["continued"] * 15
    assert len(harness.service.sessions) == 40


async def test_a_bulk_request_keeps_to_the_quota(bundle_path: Path, keys: Path) -> None:
    """A client alone gets all events of a bulk request answered, whatever its quota of pending requests or its rate."""
    harness = Harness(bundle_path, api_keys=keys, quota_pending=3, quota_rate=0.5)
    answer = await harness.client.post("/v1/events", json=bulk([f"b{n}" for n in range(20)]), headers=bearer(BOB))
    assert [result.get("state") for result in answer.json()["results"]] == ["new"] * 20


async def test_a_flood_of_answers_costs_nobody_else_any(bundle_path: Path, keys: Path) -> None:
    """After Alice's megabytes of remembered answers Bob's key still gets its first answer."""
    harness = Harness(bundle_path, api_keys=keys, max_sessions=5000, max_answer_bytes=2**20)
    url = "/v1/sessions/u/events"
    mine = bearer(BOB) | {"Idempotency-Key": "mine"}
    first = await harness.client.post(url, json={"items": ["a"]}, headers=mine)
    for start in range(0, 2000, 500):
        names = [f"a{n}" for n in range(start, start + 500)]
        await harness.client.post("/v1/events", json=bulk(names, idempotency_key="k"), headers=bearer(ALICE))
    assert harness.service.counters.evicted["answers"] > 0
    assert (await harness.client.post(url, json={"items": ["a"]}, headers=mine)).content == first.content


async def test_a_client_may_have_so_many_requests_a_second(bundle_path: Path, keys: Path) -> None:
    """Requests, the events of bulk requests and the messages of streams beyond --quota-rate are 429."""
    harness = Harness(bundle_path, api_keys=keys, quota_rate=5.0)
    url = "/v1/sessions/u/events"
    answers = [await harness.client.post(url, json={"items": ["a"]}, headers=bearer(ALICE)) for _ in range(20)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    check(answers[-1], "rate_limited")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await harness.client.post(url, json={"items": ["a"]}, headers=bearer(BOB))).status_code == 200
    await harness.client.post("/v1/events", json=bulk([f"b{n}" for n in range(50)]), headers=bearer(BOB))
    check(await harness.client.get("/v1/model", headers=bearer(BOB)), "rate_limited")


def raw(server: ServerProcess, source: str) -> socket.socket:
    """A connection from an address."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=10, source_address=(source, 0))


def test_an_address_leaves_places_to_others(start_server: Start) -> None:
    """One address cannot have all connections; another still gets one, and the first is told why it gets no more."""
    server = start_server("--max-connections", "32")
    with ExitStack() as clients:
        for _ in range(32):
            clients.enter_context(raw(server, "127.0.0.2"))
        refused = clients.enter_context(raw(server, "127.0.0.2"))
        assert b" 503 " in refused.recv(1000).split(b"\r\n")[0]
        transport = httpx.HTTPTransport(local_address="127.0.0.3")
        with httpx.Client(transport=transport) as other:
            assert other.get(f"{server.url}/healthz").status_code == 200
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as again:
        assert again.get(f"{server.url}/healthz").status_code == 200


def test_a_name_has_a_quota_of_connections(start_server: Start, keys: Path) -> None:
    """A name's connections beyond --quota-connections are 503 and closed; another name's are not."""
    server = start_server("--quota-connections", "3", "--api-keys", str(keys), "--forwarded-allow-ips", "127.0.0.1")
    with ExitStack() as clients:
        mine = [clients.enter_context(httpx.Client(headers=bearer(ALICE))) for _ in range(4)]
        statuses = [client.get(f"{server.url}/v1/model").status_code for client in mine]
        assert statuses == [200, 200, 200, 503]
        assert mine[0].get(f"{server.url}/v1/model").status_code == 200
        refused = mine[3].get(f"{server.url}/v1/model")
        assert refused.headers["connection"] == "close"
        assert "4" not in refused.json()["detail"]
        assert httpx.get(f"{server.url}/v1/model", headers=bearer(BOB)).status_code == 200
