"""The server under a path of nginx's, whether nginx takes that path off or passes it on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from websockets.sync.client import connect

from ..bundles import write_bundle
from ..console import assert_predicts, live, send
from .proxies import UnixServer, nginx, unix_server
from .test_docs import try_out

FLAGS = ("--root-path", "/predict", "--forwarded-allow-ips", "*", "--access-log", "--log-format", "json")


class Site(NamedTuple):
    """A server and the address under which nginx shows it."""

    server: UnixServer
    url: str


@pytest.fixture(scope="module", params=["taken off", "passed on"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server behind nginx, under /predict."""
    folder = tmp_path_factory.mktemp("proxied")
    path = folder / "socket"
    bundle = write_bundle(folder / "bundle")
    passed_on = request.param == "passed on"
    with unix_server(bundle, path, *FLAGS) as server, nginx(folder / "nginx", path, passed_on=passed_on) as url:
        yield Site(server, f"{url}/predict")


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    """A page that asks for nothing outside the site's path, and logs nothing."""
    asked: list[str] = []
    logged: list[str] = []
    page = chromium.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: logged.append(message.text))
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((f"{site.url}/", "data:"))] == []
    assert logged == []


def test_the_console_works_under_a_path(site: Site, page: Page) -> None:
    """The console loads, learns about the model and moves a session, all below the path."""
    page.goto(f"{site.url}/")
    send(live(page), "a", "b")
    assert_predicts(page, ["a", "b"])


def test_the_documentation_works_under_a_path(site: Site, page: Page) -> None:
    """The console's link leads to Swagger UI, which sends its requests below the path."""
    page.goto(f"{site.url}/")
    page.get_by_role("link", name="API").click()
    expect(page).to_have_url(f"{site.url}/docs")
    try_out(page)


def test_the_api_works_under_a_path(site: Site) -> None:
    """Events and streams work below the path, and refusals are the API's."""
    answer = httpx.post(f"{site.url}/v1/sessions/u/events", json={"items": ["a"]})
    assert answer.json()["step"] == 1
    with connect(f"ws{site.url.removeprefix('http')}/v1/stream") as stream:
        stream.send(json.dumps({"session_id": "u", "items": ["b"]}))
        assert json.loads(stream.recv())["step"] == 2
    assert httpx.get(f"{site.url}/openapi.json").json()["servers"] == [{"url": "/predict"}]
    missing = httpx.get(f"{site.url}/nowhere").json()
    assert missing["detail"] == 'There is nothing at "/nowhere"; /predict/docs lists what there is.'


def test_the_bare_path_leads_to_the_console(site: Site) -> None:
    """Without its slash the path leads to the one with it, by nginx or by the server."""
    answer = httpx.get(site.url, follow_redirects=True)
    assert answer.url == f"{site.url}/"
    assert "arraylstm console" in answer.text
    with site.server.client() as client:
        assert client.get("/predict").headers["location"] == "/predict/"
        assert client.get("/predictable").status_code == 404


def logged_clients(folder: Path, *flags: str) -> set[str | None]:
    """The clients in the log of a server that nginx has passed a request to."""
    path = folder / "socket"
    with unix_server(write_bundle(folder / "bundle"), path, *flags, "--access-log", "--log-format", "json") as server:
        with nginx(folder / "nginx", path) as url:
            assert httpx.get(f"{url}/predict/v1/stats").status_code == 200
        lines = server.stop().splitlines()
    return {json.loads(line)["client"] for line in lines if "/v1/stats" in line}


def test_a_proxy_is_believed_if_it_is_named(tmp_path: Path) -> None:
    """The log has the address that nginx names as its client, only if --forwarded-allow-ips says so."""
    for name, flags, client in (("not", (), None), ("believed", ("--forwarded-allow-ips", "*"), "203.0.113.7")):
        folder = tmp_path / name
        folder.mkdir()
        assert logged_clients(folder, *flags) == {client}
