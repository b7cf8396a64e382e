"""POST /admin/backup: a copy of the store in a new file, made while the server serves; anything else is refused."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from arraylstm_serve.admin import AdminApplication
from arraylstm_serve.http.auth import Keys

from ..servers import Start
from .admin_listener import admin_url
from .answers import check
from .harness import Harness
from .keys import ALICE, BOB, bearer, line
from .test_durable import Store, server


def backup(url: str, path: object) -> httpx.Response:
    """Ask a server's admin listener for a backup."""
    return httpx.post(f"{url}/admin/backup", json={"path": str(path)}, timeout=60)


def send(url: str, name: str, item: str) -> dict[str, object]:
    """Send an item; what is answered."""
    answer = httpx.post(f"{url}/v1/sessions/{name}/events", json={"items": [item]}, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_server_begins_from_a_backup_where_it_was_made(start_server: Start, tmp_path: Path) -> None:
    """A backup amid events has all that was answered before; a server on it goes on from there, as the log says."""
    one = start_server("--sessions", f"sqlite:{tmp_path / 'live.db'}", "--admin-port", "0")
    for name in ("u", "v"):
        send(one.url, name, "a")
    stop, steps = Event(), [1]

    def go_on() -> None:
        while not stop.is_set():
            steps.append(int(str(send(one.url, "busy", "b")["step"])))

    events = Thread(target=go_on)
    events.start()
    copy = tmp_path / "copy.db"
    answer = backup(admin_url(one), copy)
    stop.set()
    events.join()
    made = answer.json()
    assert (answer.status_code, set(made)) == (200, {"path", "bytes", "seconds"})
    assert (made["path"], made["bytes"]) == (str(copy), copy.stat().st_size)
    assert copy.stat().st_mode & 0o777 == 0o600
    later = send(one.url, "u", "b")
    one.process.terminate()
    assert one.process.wait(20) == 0
    assert f"/admin/backup: {made['bytes']} bytes are in {copy}, as somebody without" in one.process.communicate()[1]
    two = start_server("--sessions", f"sqlite:{copy}", "--admin-port", "0")
    assert httpx.get(f"{two.url}/v1/sessions/v").json()["step"] == 1
    again = send(two.url, "u", "b")
    assert (again["step"], again["predictions"]) == (2, later["predictions"])


def test_what_is_unsafe_is_refused(start_server: Start, tmp_path: Path) -> None:
    """A file that is there, a place that is none and a path that says little are told; nothing is written."""
    store = tmp_path / "live.db"
    server = start_server("--sessions", f"sqlite:{store}", "--admin-port", "0")
    (tmp_path / "mine").write_text("mine")
    before = {file.name for file in tmp_path.iterdir()}
    url = admin_url(server)
    for path in ("copy.db", "../copy.db", "", "/", "~/copy", f"{tmp_path}/a\nb", f"{tmp_path}/a\0b", "/" + "x" * 4001):
        assert "from the root" in check(backup(url, path), "invalid_request")["detail"]
    for place, fault in {
        "mine": "is there already",
        "live.db": "is there already",
        "live.db-shm": "SQLite gives the name",
        "none/copy": "No such file",
        "mine/copy": "Not a directory",
        "x" * 300: "too long",
    }.items():
        assert fault in check(backup(url, tmp_path / place), "backup_failed")["detail"]
    for body in (b"{}", b'{"path": 7}', b'{"path": "/x", "mode": 1}'):
        check(httpx.post(f"{url}/admin/backup", content=body), "invalid_request")
    check(httpx.post(f"{url}/admin/backup", content=b"/backups/x"), "invalid_json")
    check(httpx.post(f"{url}/admin/backup", content=b" " * 5000), "payload_too_large")
    check(httpx.get(f"{url}/admin/backup"), "method_not_allowed")
    check(httpx.post(f"{server.url}/admin/backup", json={"path": "/x"}), "not_found")
    assert {file.name for file in tmp_path.iterdir()} == before
    assert (tmp_path / "mine").read_text() == "mine"


def client_of(harness: Harness, keys: Keys | None = None) -> httpx.AsyncClient:
    """A client of the harness's admin listener."""
    app = AdminApplication(harness.service, harness.service.settings.of_admin, keys)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.anyio
async def test_other_stores_make_none(bundle_path: Path) -> None:
    """Without a store, and with one that makes no backups itself, the refusal says so."""
    alone = client_of(Harness(bundle_path))
    refused = check(await alone.post("/admin/backup", json={"path": "/x"}), "backup_failed")
    assert "memory alone" in refused["detail"]
    kept = client_of(server(bundle_path, Store()))
    refused = check(await kept.post("/admin/backup", json={"path": "/x"}), "backup_failed")
    assert "makes no backups itself; use its own tools" in refused["detail"]


@pytest.mark.anyio
async def test_a_backup_needs_a_key_for_everything(bundle_path: Path, tmp_path: Path) -> None:
    """A key that may only read, or none, makes no backup; nor does a page of another origin, nor a stopping server."""
    harness = server(bundle_path, Store())
    (tmp_path / "keys").write_text(line("alice", ALICE) + line("bob", BOB).strip() + " read-only\n")
    client = client_of(harness, Keys(tmp_path / "keys"))
    body = {"path": "/x"}
    check(await client.post("/admin/backup", json=body), "unauthorized")
    check(await client.post("/admin/backup", json=body, headers=bearer(BOB)), "forbidden")
    foreign = bearer(ALICE) | {"Origin": "https://evil.example"}
    check(await client.post("/admin/backup", json=body, headers=foreign), "foreign_origin")
    check(await client.post("/admin/backup", json=body, headers=bearer(ALICE)), "backup_failed")
    harness.service.stopping = True
    check(await client.post("/admin/backup", json=body, headers=bearer(ALICE)), "stopping")
