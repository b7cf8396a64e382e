"""The console in a browser: a visitor's session against the reference model, and what is told when things fail."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from arraylstm_serve.http.auth import make_key

from ..servers import ServerProcess
from .bundles import Reference, V, expected_observed, expected_predictions, index_of, write_bundle

Start = Callable[..., ServerProcess]
Open = Callable[..., Page]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
EXACT = [2**53 + 1, 2**53, -(2**62) - 1, "<b>bold</b>", "plain", "", "5"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that do not stop it; each of them has sessions of its own."""
    process = ServerProcess(write_bundle(tmp_path_factory.mktemp("console") / "bundle"))
    yield process
    process.stop()


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


# -- what a visitor sees ----------------------------------------------------------------------------------------------


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


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_is_taken_up_where_it_stands(open_page: Open, server: ServerProcess) -> None:
    """A session of another client is opened by its name or address with its items, predictions and state."""
    httpx.post(f"{server.url}/v1/sessions/theirs/events", json={"items": ["a", "b"]})
    page = live(open_page())
    page.get_by_label("Session", exact=True).fill("theirs")
    page.get_by_role("button", name="Open").click()
    settled(page, 2)
    assert_predicts(page, ["a", "b"])
    expect(page.locator("#columns .unknown")).to_have_count(2)
    send(page, "c")
    assert_predicts(page, ["a", "b", "c"])
    page.reload()
    settled(page, 3)
    assert session_of(page) == "theirs"


def test_items_go_to_the_session_that_is_named(open_page: Open, server: ServerProcess) -> None:
    """A name that was typed and not opened is opened before anything is sent, and New leaves it for a fresh one."""
    httpx.post(f"{server.url}/v1/sessions/named/events", json={"items": ["a", "b"]})
    page = live(open_page())
    send(page, "e")
    page.get_by_label("Session", exact=True).fill("named")
    field(page).fill("c")
    expect(page.locator("#send-hint")).to_have_text("Sends the text c. Opens named first.")
    field(page).press("Enter")
    settled(page, 3)
    assert_predicts(page, ["a", "b", "c"])
    page.get_by_role("button", name="New").click()
    expect(page.locator("#step")).to_have_text("0")
    expect(page.locator("#columns")).to_be_empty()
    assert "#" not in page.url


def test_recent_sessions_are_at_hand(open_page: Open) -> None:
    """The sessions that were begun here can be gone back to, the latest first."""
    page = live(open_page())
    names = []
    for _ in range(2):
        page.get_by_role("button", name="New").click()
        names.append(session_of(page))
        send(page, "a")
    assert page.locator("#recent button").all_inner_texts()[:2] == names[::-1]
    page.get_by_role("button", name=names[0]).click()
    settled(page, 1)
    assert session_of(page) == names[0]


def test_a_session_ends_and_can_be_given_back(open_page: Open, server: ServerProcess) -> None:
    """Ending a session forgets it on the server; undoing that puts its state back."""
    page = live(open_page())
    send(page, "a", "b")
    name = session_of(page)
    page.get_by_role("button", name="End session").click()
    expect(page.get_by_role("alert")).to_contain_text(f"Session {name} has ended")
    assert httpx.get(f"{server.url}/v1/sessions/{name}").status_code == 404
    assert session_of(page) != name
    page.get_by_role("button", name="Undo").click()
    settled(page, 2)
    assert session_of(page) == name
    assert_predicts(page, ["a", "b"])
    send(page, "c")
    assert_predicts(page, ["a", "b", "c"])
    expect(page.locator("#standing")).to_have_text("restored")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_refusal_is_told_in_words(open_page: Open) -> None:
    """An item the model does not know moves nothing, is named, and stays in the field; the next answer clears it."""
    page = live(open_page())
    field(page).fill("<i>zzz</i>")
    field(page).press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The model does not know this item")
    expect(alert).to_contain_text('Item "<i>zzz</i>" is not known')
    expect(alert).to_contain_text("unknown_item")
    expect(field(page)).to_have_value("<i>zzz</i>")
    assert step_of(page) == 0
    send(page, "a")
    expect(alert).to_be_empty()


def test_a_session_that_others_moved_is_not_moved_blindly(open_page: Open, server: ServerProcess) -> None:
    """Where another client went on with the session, the page says so, applies nothing, and shows where it stands."""
    page = live(open_page())
    send(page, "a")
    httpx.post(f"{server.url}/v1/sessions/{session_of(page)}/events", json={"items": ["b"]})
    field(page).fill("c")
    field(page).press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The session is at another step")
    page.get_by_role("button", name="Show its step").click()
    settled(page, 2)
    expect(field(page)).to_have_value("c")
    assert_predicts(page, ["a", "b"])


def test_a_session_that_is_gone_is_told_of(open_page: Open, server: ServerProcess) -> None:
    """A session that the server forgot is not begun anew in silence."""
    page = live(open_page())
    send(page, "a")
    name = session_of(page)
    httpx.delete(f"{server.url}/v1/sessions/{name}")
    field(page).fill("b")
    field(page).press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server no longer has the session")
    page.get_by_role("button", name="Start it again").click()
    send(page, "b")
    assert session_of(page) == name
    assert_predicts(page, ["b"])


def test_an_answer_that_is_lost_is_asked_for_again(open_page: Open, server: ServerProcess) -> None:
    """A request whose answer did not arrive is sent again under its key: its items are applied once."""
    lost: list[str] = []

    def lose(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.request.url)
            route.fetch()
            route.abort()

    page = live(open_page(**{"sessions/*/events": lose}))
    field(page).fill("a")
    field(page).press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("What you sent was not answered")
    page.get_by_role("button", name="Send again").click()
    settled(page, 1)
    assert_predicts(page, ["a"])
    assert httpx.get(f"{server.url}/v1/sessions/{session_of(page)}").json()["step"] == 1


def test_a_server_that_goes_and_comes_back_is_noticed(open_page: Open, tmp_path: Any) -> None:
    """Without an answer the page says so and keeps asking; once there is one it says what became of the session."""
    bundle = write_bundle(tmp_path / "bundle")
    first = ServerProcess(bundle)
    page = live(open_page(first.url))
    send(page, "a")
    first.stop()
    expect(page.locator("#status")).to_have_text("No answer")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    second = ServerProcess(bundle, port=first.port)
    try:
        live(page)
        expect(page.locator("#figures b").first).to_have_text("0")
        expect(page.get_by_role("alert")).to_contain_text("The server does not have this session")
        page.get_by_role("button", name="Start it again").click()
        send(page, "b")
        assert_predicts(page, ["b"])
        page.close()
    finally:
        second.stop()


def test_a_key_is_asked_for_and_sent(open_page: Open, tmp_path: Any) -> None:
    """Where the server wants a key the page asks until it has one, sends it always, and keeps it for this tab alone."""
    key, line = make_key("visitor")
    (tmp_path / "keys").write_text(line)
    guarded = ServerProcess(write_bundle(tmp_path / "bundle"), "--api-keys", str(tmp_path / "keys"))
    try:
        page = open_page(guarded.url)
        for wrong, said in (("", "has no API key"), ("guess", "has an unknown API key")):
            if wrong:
                page.get_by_label("Sent with every request").fill(wrong)
                page.get_by_role("button", name="Use").click()
            expect(page.locator("#status")).to_have_text("Key needed")
            expect(page.get_by_role("alert")).to_contain_text(said)
        page.get_by_label("Sent with every request").fill(key)
        page.get_by_role("button", name="Use").click()
        expect(page.get_by_role("alert")).to_be_empty()
        send(live(page), "a")
        page.reload()
        settled(live(page), 1)
        assert key not in page.evaluate("JSON.stringify(localStorage) + location.href")
        page.close()
    finally:
        guarded.stop()


# -- the page itself --------------------------------------------------------------------------------------------------


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
