"""The console in a browser: what a visitor sees is what the model says, and the page is one to work with."""

from __future__ import annotations

import math
import re
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from ..servers import ServerProcess
from .bundles import Reference, V, expected_predictions, index_of, write_bundle
from .console import (
    PHONE,
    WIDE,
    Open,
    assert_predicts,
    assert_surprised,
    field,
    live,
    send,
    session_of,
    settled,
    step_of,
)
from .console import open_page as open_page

EXACT = [2**53 + 1, 2**53, -(2**62) - 1, "<b>bold</b>", "plain", "", "5"]


def cells(page: Page, tensor: int, count: int) -> list[list[int]]:
    """The colour (red, green, blue) in the middle of each cell of a tensor's picture, in order."""
    script = """(canvas, count) => {
        const colours = [];
        const box = canvas.getBoundingClientRect();
        const caption = canvas.parentElement.querySelector(".value");
        const seen = new Map();
        for (let y = 2; y < box.height; y += 2)
            for (let x = 2; x < box.width; x += 2) {
                const at = { offsetX: x, offsetY: y };
                canvas.onpointermove(at);
                const place = caption.textContent.split("]")[0];
                if (place && !seen.has(place)) seen.set(place, [x + 3, y + 3]);
            }
        canvas.onpointerleave();
        const ratio = canvas.width / box.width;
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return [...seen].map(([place, [x, y]]) => [place, [...copy.getImageData(x * ratio, y * ratio, 1, 1).data]]);
    }"""
    found = dict(page.locator("#states canvas").nth(tensor).evaluate(script, count))
    assert len(found) == count
    return [found[place][:3] for place in sorted(found)]


def picture(page: Page, tensor: int = 0) -> str:
    """All that a canvas shows."""
    return str(page.locator("#states canvas").nth(tensor).evaluate("canvas => canvas.toDataURL()"))


def test_a_visitor_sees_what_the_model_predicts_and_what_surprised_it(open_page: Open) -> None:
    """Typed one by one, several at once or taken from the predictions, items move the session as the reference says."""
    page = live(open_page())
    expect(page.locator("#predictions")).to_be_empty()
    items: list[str | int] = []
    for texts in (["a"], ["b", "e"], ["e"]):
        send(page, *texts)
        items += texts
        assert_predicts(page, items)
        assert_surprised(page, items)
    taken = expected_predictions(items)[2][0]
    page.locator("#predictions button").nth(2).click()
    settled(page, 5)
    assert_predicts(page, [*items, taken])
    assert_surprised(page, [*items, taken])
    expect(page.locator("#reading")).to_contain_text(f"of {V}")
    expect(page.locator("#standing")).to_have_text("continued")


def test_five_is_not_five_in_quotes(open_page: Open) -> None:
    """Digits are sent as a number unless the visitor says text, quotes make text, and the page shows which it is."""
    page = live(open_page())
    field(page).fill("5")
    expect(page.locator("#send-hint")).to_have_text("Sends the number 5.")
    send(page, "5")
    send(page, '"5"')
    field(page).fill("5")
    page.get_by_role("button", name="as number").click()
    expect(page.locator("#send-hint")).to_have_text('Sends the text "5".')
    send(page, "5")
    assert page.locator("#columns .name").all_inner_texts() == ["5", '"5"', '"5"']
    assert_predicts(page, [5, "5", "5"])


def test_known_items_are_found_by_a_part_of_their_name(open_page: Open) -> None:
    """After a first answer the field suggests the model's items; one that is chosen waits to be sent, as it is."""
    page = live(open_page())
    send(page, "a")
    field(page).fill("5")
    options = page.get_by_role("option")
    assert sorted(options.locator(".name").all_inner_texts()) == ['"5"', "5"]
    text = options.filter(has_text='"5"')
    text.click()
    field(page).fill("c")
    field(page).press("ArrowDown")
    field(page).press("Enter")
    assert page.locator("#queue button").all_inner_texts() == ['"5"', "c"]
    page.get_by_role("button", name="Send 2").click()
    settled(page, 3)
    assert_predicts(page, ["a", "5", "c"])


def test_the_picture_of_the_state_is_the_state(open_page: Open) -> None:
    """Before an item every cell is neutral; then each has its number's sign as a hue, and another item changes it."""
    page = live(open_page())
    expect(page.locator("#states figure")).to_have_count(2)
    neutral = cells(page, 0, 5)
    assert len({tuple(colour) for colour in neutral}) == 1
    model = Reference()
    for step, item in enumerate(["a", "c"], 1):
        before = picture(page)
        send(page, item)
        assert step_of(page) == step
        model.step(index_of(item))
        for tensor, state in enumerate((model.h, model.m)):
            signs = [math.copysign(1, red - blue) for red, _, blue in cells(page, tensor, state.size)]
            largest = np.abs(state).ravel() > 0.1 * np.abs(state).max()
            assert np.array(signs)[largest].tolist() == np.sign(state).ravel()[largest].tolist()
        assert picture(page) != before


def test_the_picture_of_the_change_is_the_difference(open_page: Open) -> None:
    """The change since the last items is drawn on demand, from zero for a session's first."""
    page = live(open_page())
    page.get_by_text("Change", exact=True).click()
    model, last = Reference(), np.zeros(5)
    for item in ("d", "b"):
        send(page, item)
        model.step(index_of(item))
        change, last = model.h - last, model.h
        signs = [math.copysign(1, red - blue) for red, _, blue in cells(page, 0, 5)]
        largest = np.abs(change) > 0.1 * np.abs(change).max()
        assert np.array(signs)[largest].tolist() == np.sign(change)[largest].tolist()


def test_as_many_predictions_are_shown_as_asked_for(open_page: Open) -> None:
    """The number of rows is the visitor's choice, and what is left out is told in sum."""
    page = live(open_page())
    send(page, "a")
    page.get_by_label("Show").select_option("5")
    expect(page.locator("#predictions li")).to_have_count(5)
    left = sum(chance for _, chance in expected_predictions(["a"])[5:])
    said = re.match(r"2 other items: ([\d.]+)% together", page.locator("#rest").inner_text())
    assert said
    assert float(said[1]) / 100 == pytest.approx(left, rel=6e-3)


def test_the_figures_are_the_servers(open_page: Open, server: ServerProcess) -> None:
    """What other clients do moves the figures within seconds, and the model's facts are those of its manifest."""
    page = live(open_page())
    tiles = page.locator("#figures li")
    steps = httpx.get(f"{server.url}/v1/stats").json()["steps_total"]
    for _ in range(3):
        httpx.post(f"{server.url}/v1/sessions/elsewhere/events", json={"items": ["a", "b"]})
    expect(page.locator("#tallies")).to_contain_text(f"{steps + 6} steps")
    stats = httpx.get(f"{server.url}/v1/stats").json()
    expect(tiles.filter(has_text="Sessions").locator("b")).to_have_text(str(stats["sessions"]))
    expect(tiles.filter(has_text="Events").locator("path").last).to_have_attribute("d", re.compile(r"^M.* (?!15\.00)"))
    expect(page.locator("#summary")).to_have_text(f"tiny cell, {V} items, 5 units")


def test_every_reason_to_evict_is_shown(open_page: Open) -> None:
    """The figures count sessions evicted for any reason, and the tallies name each."""
    stats = {"events_total": 7, "requests_total": 9, "evicted": {"expired": 1, "room": 20, "answers": 300}}

    def doctored(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | stats)

    page = live(open_page(stats=doctored))
    expect(page.locator("#tallies")).to_contain_text("evicted 1 by age, 20 for room, 300 for answers")
    expect(page.locator("#figures li").filter(has_text="Evicted").locator("b")).to_have_text("321")


def test_items_that_the_model_does_not_know_are_marked(open_page: Open, tmp_path: Any) -> None:
    """An unknown item is told of in words and struck through, counted, and not suggested; its known twin is neither."""
    other = ServerProcess(write_bundle(tmp_path / "unknown", unknown="e", labels=["a", "b", "c", "d", "e", "6", "5"]))
    try:
        page = live(open_page(other.url))
        send(page, "zebra")
        send(page, "6")
        columns = page.locator("#columns li")
        expect(columns.first).to_contain_text("step 1, zebra, unknown to the model, the first item")
        assert columns.evaluate_all("each => each.map(one => one.classList.contains('unlisted'))") == [True, False]
        expect(columns.last).not_to_contain_text("unknown")
        expect(page.locator("#tallies")).to_contain_text("1 unknown item,")
        field(page).fill("z")
        expect(page.locator("#suggestions [role=option]")).to_have_count(0)
        page.close()
    finally:
        other.stop()


def test_labels_stay_what_they_are(open_page: Open, tmp_path: Any) -> None:
    """Integers beyond 2^53 are sent back exactly, and markup in a label is text."""
    bundle = write_bundle(tmp_path / "exact", labels=EXACT)
    other = ServerProcess(bundle)
    try:
        page = live(open_page(other.url))
        send(page, str(EXACT[0]))
        texts = page.locator("#predictions .name").all_inner_texts()
        assert sorted(texts) == sorted([*(str(label) for label in EXACT[:5]), '""', '"5"'])
        for step, label in enumerate(EXACT[:4], 2):
            page.locator("#predictions button", has=page.get_by_text(str(label), exact=True)).click()
            settled(page, step)
        recent = httpx.get(f"{other.url}/v1/sessions/{session_of(page)}").json()["recent"]
        assert recent == [EXACT[0], *EXACT[:4]]
        page.close()
    finally:
        other.stop()


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_fits_and_stays_where_it_is(open_page: Open, viewport: Any) -> None:
    """Nothing is wider than the screen, and a session's items move no part of the page."""
    page = live(open_page(viewport=viewport))
    expect(page.locator("#figures b").first).not_to_have_text("–")
    places = "() => [...document.querySelectorAll('section')].map(each => each.getBoundingClientRect().top + scrollY)"
    tops = page.evaluate(places)
    send(page, "a")
    send(page, "b", "c")
    assert page.evaluate(places) == pytest.approx(tops, abs=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_everything_can_be_done_from_the_keyboard(open_page: Open) -> None:
    """Items are sent, predictions taken and columns pointed at without a pointer; focus stays where it was."""
    page = live(open_page())
    field(page).focus()
    page.keyboard.type("a")
    page.keyboard.press("Enter")
    settled(page, 1)
    page.locator("#predictions button").nth(1).focus()
    page.keyboard.press("Enter")
    settled(page, 2)
    expect(page.locator("#predictions button").nth(1)).to_be_focused()
    page.locator("#columns-frame").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#reading")).to_contain_text("the first item")


def test_the_page_and_what_it_loads_are_guarded(server: ServerProcess) -> None:
    """The page and its files allow nothing from elsewhere and no inline script, are asked for anew, and are typed."""
    page = httpx.get(server.url)
    loaded = re.findall(r'(?:src|href)="(console/[^"]+)"', page.text)
    assert "console/app.mjs" in loaded
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page.text)
    for path in ("", *loaded):
        answer = httpx.get(f"{server.url}/{path}")
        policy = answer.headers["content-security-policy"]
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "javascript" in httpx.get(f"{server.url}/console/app.mjs").headers["content-type"]
    head = httpx.head(server.url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(page.content))
