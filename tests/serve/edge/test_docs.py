"""The documentation in the browser: it may do little, and can be switched off."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from ...servers import ServerProcess, Start
from ..answers import check


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that logs nothing, so that it breaks no policy."""
    logged: list[str] = []
    page = chromium.new_page()
    page.on("console", lambda message: logged.append(message.text))
    yield page
    page.close()
    assert logged == []


def test_the_documentation_works_under_its_policy(server: ServerProcess, page: Page) -> None:
    """Swagger UI draws the API and sends a request, with no script but its own and this page's."""
    answer = page.goto(f"{server.url}/docs")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe" not in policy.replace("style-src 'self' 'unsafe-inline'", "")
    assert answer.headers["x-content-type-options"] == "nosniff"
    try_out(page)


def try_out(page: Page) -> None:
    """Call /readyz from the documentation."""
    operation = page.locator("#operations-default-ready")
    operation.locator("button.opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text('"ready"')


def test_the_policy_holds_against_a_script_in_the_page(server: ServerProcess, chromium: Browser) -> None:
    """A script that somebody got into the page does not run."""
    page = chromium.new_page()
    page.goto(f"{server.url}/docs")
    script = "document.body.append(Object.assign(document.createElement('script'), { text: 'window.owned = 1' }))"
    page.evaluate(script)
    assert page.evaluate("window.owned") is None
    page.close()


def test_the_documentation_can_be_off(start_server: Start) -> None:
    """With --docs off there is no page, no file of it, no description of the API, and nothing that leads there."""
    url = start_server("--docs", "off").url
    for path in ("/docs", "/docs/assets/swagger-ui-bundle.js", "/openapi.json"):
        assert "/docs lists" not in check(httpx.get(url + path), "not_found")["detail"]
    console = httpx.get(url)
    assert console.status_code == 200
    assert "docs" not in console.text
    assert '<a href="docs">' in httpx.get(start_server().url).text
