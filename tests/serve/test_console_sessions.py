"""Sessions in the console: opened, ended, given back, and what is told when something fails."""

from __future__ import annotations

from typing import Any

import httpx
from playwright.sync_api import Route, expect

from arraylstm_serve.http.auth import make_key

from ..servers import ServerProcess
from .bundles import write_bundle
from .console import (
    Open,
    assert_predicts,
    field,
    live,
    send,
    session_of,
    settled,
    step_of,
)
from .console import open_page as open_page


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
