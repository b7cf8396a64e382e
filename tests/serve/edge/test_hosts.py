"""DNS rebinding: pages whose own name points at this machine, which a browser takes for the server's own pages."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from arraylstm_serve import Settings
from arraylstm_serve.hosts import Hosts

from ...servers import ServerProcess
from ..answers import check
from ..commands import Refusal
from ..harness import Harness

OWN = [
    "localhost",
    "LOCALHOST:80",
    "shop.localhost",
    "localhost.",
    "127.0.0.1",
    "127.9.9.9:1",
    "[::1]:8080",
    "10.1.2.3",
]
FOREIGN = ["evil.example", "evil.example:8080", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", ""]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_name_is_refused(server: ServerProcess, host: str) -> None:
    """A request for a name that is not the server's is 421 on every path, whatever it asks."""
    for method, path in (("GET", "/"), ("GET", "/v1/stats"), ("GET", "/docs"), ("POST", "/v1/sessions/u/events")):
        answer = httpx.request(method, server.url + path, headers={"Host": host})
        assert "--allowed-host" in check(answer, "foreign_host")["detail"]
    answer = httpx.post(f"{server.url}/v2/models/arraylstm/infer", headers={"Host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", OWN)
def test_a_loopback_name_is_served(server: ServerProcess, host: str) -> None:
    """Names and addresses of this machine are served by a server on a loopback address."""
    assert httpx.get(f"{server.url}/readyz", headers={"Host": host}).status_code == 200


def test_a_stream_for_a_foreign_name_is_refused(server: ServerProcess) -> None:
    """A page under a foreign name opens no stream, though Origin and Host agree."""
    uri, origin = f"ws://evil.example:{server.port}/v1/stream", Origin(f"http://evil.example:{server.port}")
    with pytest.raises(InvalidStatus) as refusal:
        connect(uri, origin=origin, sock=socket.create_connection(("127.0.0.1", server.port)))
    assert b'"code":"foreign_host"' in (refusal.value.response.body or b"")


def allowed(*names: str, host: str = "127.0.0.1") -> Hosts | None:
    """The names of a server with such settings."""
    return Settings(host=host, allowed_host=names).hosts


@pytest.mark.parametrize(
    ("names", "host", "served"),
    [
        (("shop.example",), "shop.example", True),
        (("shop.example",), "Shop.Example:443", True),
        (("shop.example",), "localhost", True),
        (("shop.example",), "a.shop.example", False),
        (("*.shop.example",), "a.shop.example", True),
        (("*.shop.example",), "shop.example", False),
        (("*.shop.example",), "evilshop.example", False),
        (("a.example", "b.example"), "b.example", True),
    ],
)
def test_allowed_names_are_served(names: tuple[str, ...], host: str, served: bool) -> None:
    """--allowed-host adds names, or all names that end like one."""
    hosts = allowed(*names)
    assert hosts is not None
    assert hosts.allows(host.encode()) == served
    assert allowed(*names, host="0.0.0.0") is not None


def test_who_checks_by_default() -> None:
    """Without --allowed-host, only a server on a loopback address checks names; * turns it off."""
    for host in ("127.0.0.1", "::1", "localhost", "127.3.2.1"):
        assert allowed(host=host) is not None
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"):
        assert allowed(host=host) is None
    assert allowed("*") is None


@pytest.mark.anyio
async def test_no_name_comes_from_no_browser(bundle_path: Path) -> None:
    """A request without a Host header is served; of several, each must be allowed."""
    harness = Harness(bundle_path, allowed_host=("shop.example",))
    request = harness.client.build_request("GET", "/readyz")
    del request.headers["Host"]
    assert (await harness.client.send(request)).status_code == 200
    twice = [("Host", "shop.example"), ("Host", "evil.example")]
    assert (await harness.client.get("/readyz", headers=twice)).status_code == 421


@pytest.mark.parametrize("name", ["https://shop.example", "shop.example:80", "Shop.example", "", "a b", "*.", "*shop"])
def test_what_is_no_name_is_no_setting(refusal: Refusal, name: str) -> None:
    """A value that no Host header could match is refused at the start."""
    assert "Must be a host's name in lower case" in refusal("bundle", f"--allowed-host={name}", COLUMNS="400")


def test_a_name_is_judged_the_same_each_time() -> None:
    """However many headers were seen before, allowed ones stay allowed and foreign ones foreign."""
    hosts = Hosts(["localhost"])
    for _ in range(2):
        for port in range(200):
            assert hosts.allows(b"localhost:%d" % port)
            assert not hosts.allows(b"evil.example:%d" % port)
