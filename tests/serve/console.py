"""The console in a browser: what a visitor does, and what the page must show by the reference model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from ..servers import ServerProcess
from .bundles import expected_observed, expected_predictions

Open = Callable[..., Page]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def open_page(chromium: Browser, server: ServerProcess) -> Iterator[Open]:
    """Opens the console; it must ask nobody but its server, and log nothing that a refusal does not explain."""
    context = chromium.new_context(viewport=WIDE)
    asked: list[str] = []
    logged: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: logged.append(str(error.error)))
    context.on("console", lambda message: logged.append(message.text))

    def opened(url: str = server.url, viewport: Any = WIDE, **routes: Callable[[Route], None]) -> Page:
        page = context.new_page()
        page.set_viewport_size(viewport)
        for pattern, handler in routes.items():
            page.route(f"**/v1/{pattern}", handler)
        page.goto(url)
        return page

    yield opened
    context.close()
    assert all(address.startswith("http://127.0.0.1:") for address in asked)
    assert [text for text in logged if not text.startswith("Failed to load resource")] == []


def live(page: Page) -> Page:
    """The page, once its server answers."""
    expect(page.locator("#status")).to_have_text("Live")
    return page


def field(page: Page) -> Any:
    """Where items are typed."""
    return page.get_by_role("combobox", name="What happened?")


def send(page: Page, *texts: str) -> None:
    """Type items, send them together, and wait for the answer."""
    step = step_of(page)
    for text in texts[:-1]:
        field(page).fill(text)
        field(page).press("Shift+Enter")
    field(page).fill(texts[-1])
    field(page).press("Enter")
    settled(page, step + len(texts))


def settled(page: Page, step: int) -> None:
    """Wait until the session stands at a step and all of it is drawn."""
    expect(page.locator("#step")).to_have_text(str(step))
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#state-hint")).to_contain_text(f"step {step}")


def step_of(page: Page) -> int:
    """Where the session stands."""
    return int(page.locator("#step").inner_text())


def session_of(page: Page) -> str:
    """The session's name."""
    return str(page.get_by_label("Session", exact=True).input_value())


def shown(item: str | int) -> str:
    """An item as the page writes it."""
    return f'"{item}"' if item == "5" else str(item)


def assert_predicts(page: Page, items: list[str | int]) -> None:
    """The rows are the reference's predictions after these items, and no row is longer than a likelier one."""
    expected = expected_predictions(items)
    rows = page.locator("#predictions button")
    assert rows.locator(".name").all_inner_texts() == [shown(item) for item, _ in expected]
    chances = [float(text.rstrip("%")) / 100 for text in rows.locator(".probability").all_inner_texts()]
    assert chances == pytest.approx([chance for _, chance in expected], rel=6e-3)
    lengths = rows.evaluate_all("rows => rows.map(row => Number(row.style.getPropertyValue('--share')))")
    assert np.array(lengths) / lengths[0] == pytest.approx(
        np.array([chance for _, chance in expected]) / expected[0][1]
    )


def assert_surprised(page: Page, items: list[str | int]) -> None:
    """The columns tell each item's surprise in bits, the probability it had and its rank."""
    words = page.locator("#columns li .unseen").all_text_contents()
    heights = page.locator("#columns li").evaluate_all(
        "columns => columns.map(column => Number(column.style.getPropertyValue('--height')))"
    )
    expected = expected_observed(items, len(items))
    assert words[0] == f"step 1, {shown(items[0])}, the first item: nothing was expected before it"
    for step, (chance, rank) in enumerate(expected[1:], 2):
        assert chance is not None
        said = re.fullmatch(r"step (\d+), (.+), ([\d.]+) bits, expected at ([\d.]+)%, rank (\d+)", words[step - 1])
        assert said, words[step - 1]
        assert (int(said[1]), said[2], int(said[5])) == (step, shown(items[step - 1]), rank)
        assert float(said[3]) == pytest.approx(-math.log2(chance), abs=6e-3)
        assert float(said[4]) / 100 == pytest.approx(chance, rel=6e-3)
    bits = [0.0, *(-math.log2(chance) for chance, _ in expected[1:] if chance is not None)]
    assert np.array(heights) * max(bits) == pytest.approx(np.array(bits) * max(heights))
