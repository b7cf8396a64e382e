"""Pages of other origins, which a browser lets send what they may not read: refused where more than a look is asked."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from arraylstm_serve import Settings, cli

from ..servers import ServerProcess, Start
from .answers import check
from .bundles import write_bundle
from .clients import fresh
from .commands import Refusal

SHOP, EVIL = "https://shop.example", "https://evil.example"
OWN, OTHER_PORT = "http://127.0.0.1:{port}", "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that pages of the shop may call."""
    bundle = write_bundle(tmp_path_factory.mktemp("origins") / "bundle")
    process = ServerProcess(bundle, "--cors-origin", SHOP, "--cors-origin", "https://other.example")
    yield process
    process.stop()


def headers(server: ServerProcess, site: str | None, origin: str | None) -> dict[str, str]:
    """What a browser says of the page."""
    said = {"Sec-Fetch-Site": site, "Origin": origin and origin.format(port=server.port)}
    return {name: value for name, value in said.items() if value is not None}


def stream(server: ServerProcess, said: dict[str, str]) -> ClientConnection:
    """A WebSocket that says so."""
    return connect(f"ws://127.0.0.1:{server.port}/v1/stream", additional_headers=said)


LET_IN = [
    (None, None),
    ("same-origin", None),
    ("none", None),
    ("same-origin", OWN),
    ("same-origin", EVIL),
    ("cross-site", SHOP),
    ("same-site", SHOP),
    ("", OWN),
    (None, OWN),
    (None, "https://127.0.0.1:{port}"),
    (None, SHOP),
    (None, ""),
]
REFUSED = [
    ("cross-site", None),
    ("same-site", None),
    ("cross-site", EVIL),
    ("same-site", OWN),
    ("cross-site", f"{SHOP}.evil.example"),
    ("Same-Origin", None),
    ("", EVIL),
    (None, EVIL),
    (None, OTHER_PORT),
    (None, "http://127.0.0.1"),
    (None, "http://localhost:{port}"),
    (None, "127.0.0.1:{port}"),
    (None, "null"),
    (None, f"{SHOP}/"),
    (None, "http://shop.example"),
    (None, "https://shöp.example"),
]


@pytest.mark.parametrize(("site", "origin"), LET_IN)
def test_who_asks_from_no_foreign_page_is_let_in(server: ServerProcess, site: str | None, origin: str | None) -> None:
    """Clients that are no browsers, the server's own pages and those of --cors-origin may do all there is."""
    said = headers(server, site, origin)
    assert httpx.post(f"{server.url}/v1/predict", json={"items": ["a"]}, headers=said).status_code == 200
    with stream(server, said) as connection:
        connection.send('{"session_id": "streamed", "items": ["a"]}')
        assert '"step"' in connection.recv()


@pytest.mark.parametrize(("site", "origin"), REFUSED)
def test_pages_of_other_origins_are_refused(server: ServerProcess, site: str | None, origin: str | None) -> None:
    """By Sec-Fetch-Site, and where there is none by Origin beside Host, a page of elsewhere moves nothing."""
    name = fresh()
    url = f"{server.url}/v1/sessions/{name}"
    said = {name: value.encode("latin-1") for name, value in headers(server, site, origin).items()}
    simple = said | {"Content-Type": b"text/plain"}
    problem = check(httpx.post(f"{url}/events", content=b'{"items":["a"]}', headers=simple), "foreign_origin")
    assert "--cors-origin" in problem["detail"]
    assert httpx.get(url).status_code == 404


REQUESTS: list[tuple[str, str]] = [
    ("POST", "/v1/sessions/u/events"),
    ("PUT", "/v1/sessions/u/state"),
    ("DELETE", "/v1/sessions/u"),
    ("POST", "/v1/events"),
    ("POST", "/v1/predict"),
    ("PATCH", "/v1/model"),
    ("POST", "/docs"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_whatever_may_change_something_is_refused(server: ServerProcess, method: str, path: str) -> None:
    """Every method but GET, HEAD and OPTIONS is refused to a foreign page, on every path, before it is looked at."""
    response = httpx.request(method, f"{server.url}{path}", headers={"Origin": EVIL})
    assert EVIL in check(response, "foreign_origin")["detail"]
    assert response.headers["x-request-id"]
    assert "access-control-allow-origin" not in response.headers


def test_the_other_protocol_refuses_in_its_own_words(server: ServerProcess) -> None:
    """Under /v2 the refusal is 403 with the protocol's `error`."""
    response = httpx.post(f"{server.url}/v2/models/arraylstm/infer", headers={"Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, list(response.json())) == (403, ["error"])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/model", "/v1/sessions/nobody", "/v2", "/v1/stream"])
def test_looking_is_what_it_was(server: ServerProcess, method: str, path: str) -> None:
    """What changes nothing is answered to a foreign page as to anybody, though its browser does not let it read it."""
    url = f"{server.url}{path}"
    expected = httpx.request(method, url)
    seen = httpx.request(method, url, headers={"Origin": EVIL, "Sec-Fetch-Site": "cross-site"})
    assert (seen.status_code, "access-control-allow-origin" in seen.headers) == (expected.status_code, False)


@pytest.mark.parametrize(("site", "origin"), [("cross-site", EVIL), (None, EVIL), (None, OTHER_PORT), (None, "null")])
def test_a_foreign_page_gets_no_stream(server: ServerProcess, site: str | None, origin: str | None) -> None:
    """The handshake, which CORS does not guard, is answered 403 with the problem."""
    with pytest.raises(InvalidStatus) as refused:
        stream(server, headers(server, site, origin))
    response = refused.value.response
    assert b'"code":"foreign_origin"' in (response.body or b"")
    assert (response.status_code, response.headers["Content-Type"]) == (403, "application/problem+json")
    assert response.headers["X-Request-ID"]


def test_any_origin_can_be_allowed(start_server: Start) -> None:
    """With --cors-origin "*" pages of every origin may call, those without one too."""
    server = start_server("--cors-origin", "*")
    for said in ({"Origin": EVIL}, {"Origin": "null", "Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert httpx.post(f"{server.url}/v1/predict", json={"items": ["a"]}, headers=said).status_code == 200
        with stream(server, said):
            pass


NO_ORIGINS = [
    "",
    "null",
    "shop.example",
    "localhost:3000",
    "//shop.example",
    "https://",
    "https://shop.example/",
    "https://shop.example/page",
    "https://shop.example?a",
    "https://shop.example:443",
    "http://shop.example:80",
    "https://shop.example:",
    "https://*.shop.example",
    "https://Shop.example",
    "HTTPS://shop.example",
    "https://shöp.example",
    "https://user@shop.example",
    " https://shop.example",
    "https://shop.example,https://other.example",
    "https://shop.example:99999",
    "https://shop.example:0",
    "https://...",
    "http://1.2.3.999",
    "http://[::::]",
]


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_what_no_browser_sends_is_refused_at_the_start(bundle_path: Path, refusal: Refusal, text: str) -> None:
    """A --cors-origin that could let no page in is told by its value, with what is allowed, and the status is 2."""
    said = refusal(str(bundle_path), "--port", "0", "--cors-origin", SHOP, "--cors-origin", text, COLUMNS="400")
    assert f'Invalid value "{text}" for --cors-origin. Must be an origin as browsers send it' in said


ORIGINS = [
    "*",
    SHOP,
    "http://localhost:3000",
    "http://127.0.0.1:8000",
    "http://[::1]:3000",
    "http://shop.example:443",
    "https://xn--shp-tna.example",
    "chrome-extension://abcdefghijklmnop",
]


def test_what_browsers_send_is_taken(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Origins of any scheme, with ports, of addresses, and * are taken from flags and from a variable with blanks."""
    served: list[Settings] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: served.append(settings))
    flags = [word for text in ORIGINS for word in ("--cors-origin", text)]
    monkeypatch.setattr(sys, "argv", ["arraylstm-serve", str(bundle_path), *flags])
    assert cli.main() == 0
    monkeypatch.setattr(sys, "argv", ["arraylstm-serve", str(bundle_path)])
    monkeypatch.setenv("ARRAYLSTM_CORS_ORIGIN", " ".join(ORIGINS))
    assert cli.main() == 0
    assert [settings.cors_origin for settings in served] == [tuple(ORIGINS)] * 2


def test_a_key_does_not_make_a_page_less_foreign(start_server: Start, tmp_path: Path) -> None:
    """Where API keys are asked for, a foreign page is refused as such, with a key or without."""
    (tmp_path / "keys").write_text(f"alice {hashlib.sha256(b'key').hexdigest()}\n")
    server = start_server("--api-keys", str(tmp_path / "keys"))
    for given in ({}, {"X-API-Key": "key"}):
        said = given | {"Origin": EVIL}
        check(httpx.post(f"{server.url}/v1/predict", json={"items": ["a"]}, headers=said), "foreign_origin")
        with pytest.raises(InvalidStatus, match="403"):
            stream(server, said)


# -- in a browser -----------------------------------------------------------------------------------------------------

TRY = """async ({ http, ws }) => {
    const simple = { method: "POST", mode: "no-cors", body: '{"items": ["a"]}' };
    await fetch(`${http}/v1/sessions/simple/events`, simple);
    const open = { ...simple, mode: "cors", headers: { "Idempotency-Key": "k" } };
    const read = await fetch(`${http}/v1/sessions/open/events`, open).then((answer) => answer.json(), () => null);
    const streamed = await new Promise((resolve) => {
        const stream = new WebSocket(`${ws}/v1/stream`);
        stream.onopen = () => stream.send('{"session_id": "streamed", "items": ["a"]}');
        stream.onmessage = ({ data }) => resolve(JSON.parse(data));
        stream.onerror = () => resolve(null);
    });
    return [read, streamed].map((answer) => answer?.step ?? null);
}"""


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty page."""
    page = chromium.new_page()
    yield page
    page.close()


def attempt(page: Page, origin: str, server: ServerProcess) -> tuple[Any, int]:
    """The steps that a page of an origin is told, having tried to reach a server, and how many sessions it began."""
    page.goto(f"{origin}/healthz")
    told = page.evaluate(TRY, {"http": server.url, "ws": server.url.replace("http", "ws")})
    return told, httpx.get(f"{server.url}/v1/stats").json()["sessions"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another site"])
def test_a_browser_carries_nothing_from_a_foreign_page(page: Page, start_server: Start, host: str) -> None:
    """Simple requests and WebSockets, for which browsers ask no leave, begin no session from elsewhere."""
    elsewhere = f"http://{host}:{start_server().port}"
    assert attempt(page, elsewhere, start_server()) == ([None, None], 0)
    assert attempt(page, elsewhere, start_server("--cors-origin", elsewhere)) == ([1, 1], 3)


def test_a_browser_carries_everything_from_the_servers_own_page(page: Page, start_server: Start) -> None:
    """The same from a page of the server itself is applied."""
    server = start_server()
    assert attempt(page, server.url, server) == ([1, 1], 3)
