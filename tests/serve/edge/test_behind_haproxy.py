"""The server behind HAProxy, as deploy/haproxy.cfg says: requests, streams, health."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from ...servers import ServerProcess
from ..bundles import write_bundle
from ..sockets import HEALTH, answer_to
from ..sockets import connect as connect_to
from .proxies import free_port, haproxy

FLAGS = ("--forwarded-allow-ips", "127.0.0.1", "--allowed-host", "shop.example", "--access-log", "--log-format", "json")


class Site(NamedTuple):
    """A server, its admin listener, and the address under which HAProxy shows it."""

    server: ServerProcess
    admin: str
    url: str


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server behind HAProxy."""
    port = free_port()
    server = ServerProcess(
        write_bundle(tmp_path / "bundle"), *FLAGS, "--admin-port", str(port), "--max-connections", "20"
    )
    try:
        with haproxy(tmp_path, server.port, port) as url:
            wait_for(url, 200)
            yield Site(server, f"http://127.0.0.1:{port}", url)
    finally:
        server.stop()


def wait_for(url: str, status: int) -> None:
    """Wait until HAProxy has learned of the server's health."""
    ends = time.monotonic() + 20
    while httpx.get(f"{url}/v1/model").status_code != status:
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_events_and_streams_are_passed_on(site: Site) -> None:
    """Events over one kept connection, large bodies and refusals come through as they are; so does a WebSocket."""
    with httpx.Client(base_url=site.url, headers={"Host": "shop.example"}) as client:
        for step in (1, 2, 3):
            assert client.post("/v1/sessions/u/events", json={"items": ["a"]}).json()["step"] == step
        assert client.post("/v1/predict", json={"items": ["a"] * 1000}).status_code == 200
        assert client.post("/v1/predict", content=b" " * 300_000).json()["code"] == "payload_too_large"
        assert client.get("/v1/sessions/none").json()["code"] == "unknown_session"
        assert client.get("/console/app.mjs").status_code == 200
    with connect(f"ws{site.url.removeprefix('http')}/v1/stream") as stream:
        for step in (4, 5):
            stream.send(json.dumps({"session_id": "u", "items": ["b"]}))
            assert json.loads(stream.recv())["step"] == step


def test_the_public_name_is_needed(site: Site) -> None:
    """HAProxy passes Host on, so that the server still refuses names that it does not go by."""
    assert httpx.get(f"{site.url}/v1/model", headers={"Host": "shop.example"}).status_code == 200
    assert httpx.get(f"{site.url}/v1/model", headers={"Host": "evil.example"}).json()["code"] == "foreign_host"


def test_a_page_behind_haproxy_may_write(site: Site) -> None:
    """A page of the public name is no foreign one, a page of another name is."""
    for origin, status in (("http://shop.example", 200), ("http://evil.example", 403)):
        headers = {"Host": "shop.example", "Origin": origin}
        answer = httpx.post(f"{site.url}/v1/predict", json={"items": ["a"]}, headers=headers)
        assert answer.status_code == status


def test_the_log_has_the_client_that_haproxy_names(site: Site) -> None:
    """The address in the log is the one that HAProxy saw, not what a client claims."""
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Request-ID": "forged"}
    assert httpx.get(f"{site.url}/v1/stats", headers=forged).status_code == 200
    site.server.process.terminate()
    lines = map(json.loads, site.server.process.communicate()[1].splitlines())
    assert [line["client"] for line in lines if line.get("request_id") == "forged"] == ["127.0.0.1"]


def test_a_drained_server_gets_no_more_requests(site: Site) -> None:
    """From POST /admin/drain on HAProxy sends nothing new; a stream goes on; DELETE brings the server back."""
    with connect(f"ws{site.url.removeprefix('http')}/v1/stream") as stream:
        assert httpx.post(f"{site.admin}/admin/drain").status_code == 200
        wait_for(site.url, 503)
        assert httpx.get(f"{site.server.url}/v1/model").status_code == 200
        stream.send(json.dumps({"session_id": "u", "items": ["a"]}))
        assert json.loads(stream.recv())["step"] == 1
        assert httpx.delete(f"{site.admin}/admin/drain").status_code == 200
        wait_for(site.url, 200)


def test_a_full_server_stays_healthy(site: Site) -> None:
    """With every public connection taken the checks succeed, so that HAProxy finds a place as soon as there is one."""
    with ExitStack() as clients:
        while answer_to(clients.enter_context(closing(connect_to(site.server))), HEALTH).startswith(b"HTTP/1.1 200"):
            pass
        time.sleep(2.5)  # two checks and more
        assert httpx.get(f"{site.admin}/readyz").status_code == 200
    for _ in range(50):
        answer = httpx.get(f"{site.url}/v1/model")
        if answer.status_code == 200:
            return
        assert answer.json()["code"] == "overloaded"  # the server's own words: HAProxy has not taken it out
        time.sleep(0.05)
    pytest.fail("the server has no place")
