"""API keys: who is let in, and whose sessions are whose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from arraylstm_serve.errors import StartupError
from arraylstm_serve.http.auth import Keys, make_key

from .answers import check
from .commands import Refusal, run
from .harness import Harness, listening
from .keys import ALICE, BOB, bearer, everything, line, write
from .keys import guarded as guarded


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer(""),
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        {"X-API-Key": ALICE.upper()},
        {"X-API-Key": hashlib.sha256(ALICE.encode()).hexdigest()},
        {"X-API-Key": "ü"},
    ],
    ids=lambda headers: str(headers)[:40],
)
async def test_without_a_key_nothing_is_let_in(guarded: Harness, headers: dict[str, str]) -> None:
    """Every operation is answered 401 with the scheme to use where the key is missing or wrong, and nothing happens."""
    encoded = {name: value.encode() for name, value in headers.items()}
    for name, response in (await everything(guarded.client, encoded)).items():  # type: ignore[arg-type]
        if name.split()[1].startswith("/v2"):
            problem = response.json()
            assert (response.status_code, set(problem)) == (401, {"error"})
        else:
            problem = check(response, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer", name
        assert response.headers["x-request-id"]
        assert ALICE not in str(problem)
    assert len(guarded.service.sessions) == 0


@pytest.mark.anyio
async def test_what_needs_no_key_is_open(guarded: Harness) -> None:
    """Health, readiness and the documentation are answered to everybody."""
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert (await guarded.client.get(path)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [bearer(ALICE), {"Authorization": f"bearer {ALICE}"}, {"X-API-Key": ALICE}])
async def test_a_key_is_taken_from_both_headers(guarded: Harness, headers: dict[str, str]) -> None:
    """Authorization: Bearer and X-API-Key let in alike."""
    responses = await everything(guarded.client, headers)
    assert 401 not in {response.status_code for response in responses.values()}


@pytest.mark.anyio
async def test_names_do_not_see_each_others_sessions(guarded: Harness) -> None:
    """One id under two names is two sessions on every route; two keys of one name are one client."""
    client = guarded.client
    mine = await client.post("/v1/sessions/u/events", json={"items": ["a", "b"]}, headers=bearer(ALICE))
    theirs = await everything(client, bearer(BOB))
    for name in ("GET /v1/sessions/u", "GET /v1/sessions/u/predictions", "DELETE /v1/sessions/u"):
        assert check(theirs[name], "unknown_session")["session_id"] == "u"
    check(theirs["GET /v1/sessions/u/state"], "unknown_session")
    first = theirs["POST /v1/sessions/u/events"].json()
    assert (first["session_id"], first["step"], first["state"]) == ("u", 1, "new")
    assert theirs["POST /v1/events"].json()["results"][0]["step"] == 2
    same = (await client.get("/v1/sessions/u", headers={"X-API-Key": "another"})).json()
    assert (same["step"], same["recent"]) == (mine.json()["step"], ["a", "b"]) == (2, ["a", "b"])


@pytest.mark.anyio
async def test_idempotency_keys_and_states_are_each_names_own(guarded: Harness) -> None:
    """Nobody gets another's answer by guessing a key, nor puts a state into another's session."""
    client, path = guarded.client, "/v1/sessions/u"
    for headers in (bearer(ALICE), bearer(BOB)):
        sent = headers | {"Idempotency-Key": "k"}
        answer = await client.post(f"{path}/events", json={"items": ["a"]}, headers=sent)
        assert (answer.json()["step"], answer.json()["state"]) == (1, "new")
    await client.post(f"{path}/events", json={"items": ["b"]}, headers=bearer(BOB))
    state = await client.get(f"{path}/state", headers=bearer(BOB))
    await client.put("/v1/sessions/w/state", content=state.content, headers=bearer(BOB))
    assert (await client.get("/v1/sessions/w", headers=bearer(ALICE))).status_code == 404
    assert (await client.get(path, headers=bearer(ALICE))).json()["step"] == 1


@pytest.fixture
async def address(guarded: Harness) -> AsyncIterator[str]:
    """Where the guarded application listens."""
    async with listening(guarded) as address:
        yield f"ws://{address}/v1/stream"


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["bearer", "header", "subprotocol"])
async def test_a_stream_is_let_in_every_way(guarded: Harness, address: str, way: str) -> None:
    """A WebSocket's key comes by either header or, from a browser, by the subprotocol; its sessions are its name's."""
    await guarded.client.post("/v1/sessions/u/events", json={"items": ["a"]}, headers=bearer(ALICE))
    with_key = {
        "bearer": {"additional_headers": bearer("another")},
        "header": {"additional_headers": {"X-API-Key": "another"}},
        "subprotocol": {"subprotocols": [Subprotocol("arraylstm.bearer"), Subprotocol("another")]},
    }
    async with connect(address, **with_key[way]) as stream:  # type: ignore[arg-type]
        assert stream.subprotocol == ("arraylstm.bearer" if way == "subprotocol" else None)
        await stream.send('{"session_id": "u", "items": ["b"]}')
        assert json.loads(await stream.recv())["step"] == 2


@pytest.mark.anyio
@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_stream_without_a_key_is_refused_at_the_handshake(address: str, key: str | None) -> None:
    """The handshake without a valid key is answered 401 with the problem."""
    protocols = [Subprotocol("arraylstm.bearer"), Subprotocol(key)] if key else None
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, subprotocols=protocols)
    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"]
    assert json.loads(response.body)["code"] == "unauthorized"


def test_a_made_key_is_let_in(tmp_path: Path) -> None:
    """`make-key` prints a line for the file and, on standard error alone, the key, which is let in under the name."""
    done = run("make-key", "shop-1")
    assert done.returncode == 0
    keys = Keys(write(tmp_path, done.stdout))
    key = done.stderr.strip().rpartition(" ")[2]
    assert keys.find(key).name == "shop-1"
    assert key not in done.stdout
    assert len(key) == 43
    assert make_key("a")[0] != make_key("a")[0]


@pytest.mark.parametrize("name", ["a b", "", "x" * 65, "ü", "a/b", "#a"])
def test_a_name_has_a_form(refusal: Refusal, name: str) -> None:
    """A name that would not fit a line of the file is refused with status 2."""
    assert "64 characters" in refusal("make-key", "--", name)


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no key"),
        ("# nobody\n\n", "has no key"),
        (f"alice {DIGEST[:-1]}\n", "line 1"),
        (f"# a comment\nalice {DIGEST}\nbob\n", "line 3"),
        (f"alice bob {DIGEST}\n", "line 1"),
        (f"alice {DIGEST[:-1]}g\n", "line 1"),
        (f"a/b {DIGEST}\n", "line 1"),
        ("alice's-own-key\n", "line 1"),
        (f"alice {DIGEST}\n#\nbob {DIGEST}\n", "one key to two names, alice in line 1 and bob in line 3"),
        (f"alice {DIGEST[:-1]}a\nbob {DIGEST[:-1]}A\n", "one key to two names, alice in line 1 and bob in line 2"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_a_fault_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    """A line that is none, or a file without any, is told with its number and the command that makes one."""
    with pytest.raises(StartupError, match=said):
        Keys(write(tmp_path, text))


@pytest.mark.parametrize("secret", [ALICE, f"alice {ALICE}", f"{ALICE} {DIGEST}", f"alice {DIGEST} {ALICE}"])
def test_what_a_line_holds_is_not_told(bundle_path: Path, tmp_path: Path, secret: str) -> None:
    """A line that may be a key itself is told by its number and what is expected, its content nowhere."""
    done = run(str(bundle_path), "--port", "0", "--api-keys", str(write(tmp_path, f"{line('bob', BOB)}{secret}\n")))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "keys line 2 is not a name of" in done.stderr
    assert "make-key NAME" in done.stderr
    assert ALICE not in done.stderr


def test_lines_may_be_written_by_other_programs(tmp_path: Path) -> None:
    """A byte order mark, CRLF, indented comments, digits in upper case and a line that is there twice are read."""
    text = f"\ufeff{line('alice', ALICE)}  # indented\n\t#too\n{line('bob', BOB).upper()}{line('alice', ALICE)}"
    keys = Keys(write(tmp_path, text.replace("\n", "\r\n")))
    assert (keys.find(ALICE).name, keys.find(BOB).name) == ("alice", "BOB")


def test_a_file_of_keys_that_cannot_be_read_is_a_fault_at_the_start(bundle_path: Path, tmp_path: Path) -> None:
    """A missing file is one line on stderr and status 2; a folder or bytes that are no text are faults too."""
    done = run(str(bundle_path), "--port", "0", "--api-keys", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--api-keys" in done.stderr
    for path in (tmp_path, write(tmp_path, "")):
        if path.is_file():
            path.write_text(line("alice", ALICE), "utf-16")
        with pytest.raises(StartupError, match="cannot be read"):
            Keys(path)


def test_windows_tells_no_writers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the bits of every file say that everybody can write it."""
    path = tmp_path / "keys"
    path.write_text(make_key("shop")[1])
    path.chmod(0o666)
    monkeypatch.setattr("sys.platform", "win32")
    Keys(path)
    assert not caplog.records


@pytest.mark.parametrize(("mode", "writers"), [(0o600, ""), (0o644, ""), (0o660, "its group"), (0o666, "everybody")])
def test_a_file_that_others_can_write_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, writers: str
) -> None:
    """Who can write the file of keys can let themselves in; the log says who that is."""
    path = tmp_path / "keys"
    path.write_text(make_key("shop")[1])
    path.chmod(mode)
    Keys(path)
    assert [record.getMessage() for record in caplog.records] == (
        [f"--api-keys {path} can be written by {writers}, who can add keys; `chmod go-w` it"] if writers else []
    )
