"""SIGHUP: keys and certificates are read again, and nothing else changes."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from arraylstm_serve.client import BulkEvent, Client, RefusedError
from arraylstm_serve.errors import StartupError
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.server.renewal import Renewal
from arraylstm_serve.server.tls import server_context

from ..servers import ServerProcess, Start
from .admin_listener import admin_port, admin_url
from .keys import ALICE, BOB, bearer, line, write
from .sockets import BODY, HEAD, accepts, rest
from .sockets import connect as tcp
from .test_tls import OPENSSL
from .test_tls import folder as folder

NEW = "a-new-key"
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificate, is not installed")


def hang_up(server: ServerProcess, lines: int = 1) -> list[str]:
    """Send SIGHUP; return what the server then logs about it."""
    assert server.process.stderr
    server.process.send_signal(signal.SIGHUP)
    logged = []
    while len(logged) < lines:
        text = server.process.stderr.readline()
        assert text
        if "SIGHUP" in text:
            logged.append(text)
    return logged


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with Alice's key and Bob's."""
    return write(tmp_path, line("alice", ALICE) + line("bob", BOB))


@pytest.fixture
def keyed(file: Path, start_server: Start) -> ServerProcess:
    """A server that lets in whom the file names."""
    return start_server("--api-keys", str(file))


def status(server: ServerProcess, key: str) -> int:
    """What a request with a key is answered."""
    return httpx.get(f"{server.url}/v1/stats", headers=bearer(key)).status_code


# -- keys


def test_keys_are_read_again(keyed: ServerProcess, file: Path) -> None:
    """After SIGHUP new keys are let in and removed ones are not, on connections that are open too; sessions stay."""
    with httpx.Client(base_url=keyed.url) as kept:
        events = "/v1/sessions/u/events"
        for key in (ALICE, BOB):
            assert kept.post(events, json={"items": ["a"]}, headers=bearer(key)).json()["step"] == 1
        file.write_text(line("alice", ALICE) + line("carol", NEW))
        assert (status(keyed, BOB), status(keyed, NEW)) == (200, 401)
        (logged,) = hang_up(keyed)
        assert logged.endswith(f"SIGHUP: --api-keys {file} read again; added: carol; removed: bob\n")
        assert " INFO " in logged
        assert [kept.get("/v1/sessions/u", headers=bearer(key)).status_code for key in (ALICE, BOB, NEW)] == [
            200,
            401,
            404,
        ]
        assert kept.post(events, json={"items": ["b"]}, headers=bearer(ALICE)).json()["step"] == 2
    file.write_text(line("bob", BOB))
    hang_up(keyed)
    back = httpx.get(f"{keyed.url}/v1/sessions/u", headers=bearer(BOB))
    assert back.json()["step"] == 1  # a name's sessions wait for it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no key"),
        (f"{ALICE}\n", "line 1 is not a name of"),
        (line("alice", ALICE) + line("bob", ALICE), "gives one key to two names"),
        (line("alice", ALICE).strip() + " write\n", "line 1 is not a name of"),
        (None, "cannot be read: No such file"),
    ],
    ids=["empty", "not a line", "two names", "unknown scope", "missing"],
)
def test_a_faulty_file_changes_nothing(keyed: ServerProcess, file: Path, text: str | None, said: str) -> None:
    """A file that would be refused at the start is an error in the log; those who were let in still are."""
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    (logged,) = hang_up(keyed)
    assert " ERROR " in logged
    assert said in logged
    assert "The keys stay as they were." in logged
    assert ALICE not in logged
    assert (status(keyed, ALICE), status(keyed, BOB), status(keyed, NEW)) == (200, 200, 401)
    file.write_text(line("carol", NEW))
    hang_up(keyed)
    assert (status(keyed, ALICE), status(keyed, NEW)) == (401, 200)


def test_a_pipe_is_not_waited_for(keyed: ServerProcess, file: Path) -> None:
    """A pipe in place of the file, which might never give a line, does not hold a running server up."""
    file.unlink()
    os.mkfifo(file)
    (logged,) = hang_up(keyed)
    assert "cannot be read again: it is not a regular file. The keys stay as they were." in logged
    assert status(keyed, ALICE) == 200


def test_a_request_that_was_let_in_is_answered(keyed: ServerProcess, file: Path) -> None:
    """A request whose head came before the key was removed is answered; the next one on its connection is not."""
    file.write_text(line("bob", BOB))
    head = HEAD.replace(b"\r\n\r\n", b"\r\nX-API-Key: " + ALICE.encode() + b"\r\n\r\n")
    with closing(tcp(keyed)) as client:
        client.sendall(head + BODY[:3])
        status(keyed, BOB)
        hang_up(keyed)
        client.sendall(BODY[3:] + head.replace(b"Host", b"Connection: close\r\nHost") + BODY)
        answers = rest(client)
    assert (answers.count(b"HTTP/1.1 200"), answers.count(b"HTTP/1.1 401")) == (1, 1)


@pytest.fixture
def stream(keyed: ServerProcess) -> Iterator[ClientConnection]:
    """A stream under Alice's key, on which a message has been answered."""
    url = f"ws://127.0.0.1:{keyed.port}/v1/stream"
    with connect(url, additional_headers=bearer(ALICE), close_timeout=1) as stream:
        stream.send('{"session_id": "u", "items": ["a"]}')
        assert json.loads(stream.recv())["step"] == 1
        yield stream


def test_a_stream_under_a_removed_key_is_closed(keyed: ServerProcess, file: Path, stream: ClientConnection) -> None:
    """A stream whose key is removed ends with 1008 and the reason, though nothing comes on it; others go on."""
    url = f"ws://127.0.0.1:{keyed.port}/v1/stream"
    with connect(url, additional_headers=bearer(BOB)) as other:
        file.write_text(line("bob", BOB))
        hang_up(keyed)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the API key is no longer accepted")
        other.send('{"session_id": "u", "items": ["a"]}')
        assert json.loads(other.recv())["step"] == 1
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers=bearer(ALICE))
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("scope", [" read-only", " metrics"])
def test_a_stream_whose_keys_scope_shrinks_is_closed(
    keyed: ServerProcess, file: Path, stream: ClientConnection, scope: str
) -> None:
    """A key that gets another scope counts as removed and added."""
    file.write_text(line("alice", ALICE).strip() + scope)
    (logged,) = hang_up(keyed)
    assert f"added: alice ({scope.strip()}); removed: alice, bob" in logged
    with pytest.raises(ConnectionClosed) as closed:
        stream.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_a_stream_under_a_kept_key_goes_on(keyed: ServerProcess, file: Path, stream: ClientConnection) -> None:
    """A file that was read again, with the stream's key in another place of it, does not disturb the stream."""
    file.write_text(line("carol", NEW) + "\n# alice\n" + line("alice", ALICE))
    hang_up(keyed)
    stream.send('{"session_id": "u", "items": ["b"]}')
    assert json.loads(stream.recv())["step"] == 2


def test_the_client_is_told_that_its_key_is_gone(keyed: ServerProcess, file: Path) -> None:
    """A stream of the Python client, whose key is removed, raises the refusal at once; nothing is applied."""
    with Client(keyed.url, api_key=ALICE) as client, client.stream() as stream:
        file.write_text(line("bob", BOB))
        hang_up(keyed)
        stream.send(BulkEvent(["a"], session_id="u"))
        with pytest.raises(RefusedError, match="unauthorized"):
            next(iter(stream))
    assert "arraylstm_session_events_total 0" in httpx.get(f"{keyed.url}/metrics", headers=bearer(BOB)).text


def until_closed(stream: ClientConnection) -> Iterator[str | bytes]:
    """What comes on a stream until the server closes it."""
    with suppress(ConnectionClosed):
        while True:
            yield stream.recv(timeout=20)


def test_messages_sent_ahead_are_not_applied_under_a_removed_key(
    keyed: ServerProcess, file: Path, stream: ClientConnection
) -> None:
    """Of messages that the server has not begun when the key is removed, none is applied: each is refused or lost."""
    file.write_text(line("bob", BOB))
    message = json.dumps({"session_id": "u", "items": ["a"] * 500, "top_k": 1})
    for _ in range(200):
        stream.send(message)
    hang_up(keyed)
    answers = [json.loads(answer) for answer in until_closed(stream)]
    assert stream.close_code == 1008
    applied = [answer["step"] for answer in answers if "step" in answer]
    assert applied == [1 + 500 * n for n in range(1, len(applied) + 1)]
    assert {answer["code"] for answer in answers[len(applied) :]} <= {"unauthorized"}
    file.write_text(line("alice", ALICE))
    hang_up(keyed)
    info = httpx.get(f"{keyed.url}/v1/sessions/u", headers=bearer(ALICE)).json()
    assert info["step"] == 1 + 500 * len(applied)
    assert len(applied) < 200


def test_admin_keys_are_read_again(tmp_path: Path, start_server: Start) -> None:
    """Each listener's file is read for itself: a fault in one does not keep the other one from being read."""
    api, admin = tmp_path / "api", tmp_path / "admin"
    api.write_text(line("alice", ALICE))
    admin.write_text(line("bob", BOB))
    server = start_server("--api-keys", str(api), "--admin-keys", str(admin), "--admin-port", "0")
    api.write_text("")
    admin.write_text(line("bob", NEW))
    logged = hang_up(server, 2)
    assert f"--api-keys {api} has no key" in logged[0]
    assert f"--admin-keys {admin} read again; added: bob; removed: bob" in logged[1]
    found = [httpx.get(f"{admin_url(server)}/metrics", headers=bearer(key)).status_code for key in (ALICE, BOB, NEW)]
    assert (found, status(server, ALICE)) == ([401, 401, 200], 200)


def test_what_changed_is_told_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The summary has the names of the keys that were added and removed, with a scope that is not everything."""
    file = write(tmp_path, line("alice", ALICE) + line("alice", NEW))
    keys = Keys(file)
    assert keys.reload() == "nothing has changed"
    file.write_text(line("alice", ALICE) + line("dave", BOB).strip() + " metrics\n")
    assert keys.reload() == "added: dave (metrics); removed: alice"
    first = keys.find(ALICE)
    file.write_text("none")
    with pytest.raises(StartupError):
        keys.reload()
    assert keys.find(ALICE) is first
    assert not first.revoked


# -- the signal


def test_sighup_without_anything_to_read_is_harmless(start_server: Start) -> None:
    """A server without keys and certificate says so, and serves on, whoever sends how many."""
    server = start_server()
    for _ in range(3):
        assert "there are no API keys and no certificate" in hang_up(server)[0]
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    server.process.terminate()
    assert server.process.wait(20) == 0


def test_sighup_during_the_start_is_heeded_afterwards(bundle_path: Path, file: Path) -> None:
    """SIGHUP while the server loads ends nothing; keys that changed since they were read are read once it serves."""
    program = (
        "import os, sys, signal\n"
        "from arraylstm_serve.__main__ import main\n"
        "from arraylstm_serve.engine.host import HostEngine\n"
        "def warm_up(*_):\n"
        f"    open({str(file)!r}, 'w').write({line('carol', NEW)!r})\n"
        "    for _ in range(3): os.kill(os.getpid(), signal.SIGHUP)\n"
        "HostEngine.warm_up = warm_up\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", program, str(bundle_path), "--port", "0", "--api-keys", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        assert process.stderr.readline().endswith("added: carol; removed: alice, bob\n")
        process.terminate()
        assert process.communicate(timeout=20)[1] == ""
        assert process.returncode == 0
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_while_the_server_stops_are_harmless(keyed: ServerProcess, number: signal.Signals) -> None:
    """SIGHUP between SIGTERM and the end changes no answer, and no signal until the very end changes the status."""
    head = HEAD.replace(b"\r\n\r\n", b"\r\nX-API-Key: " + ALICE.encode() + b"\r\n\r\n")
    with closing(tcp(keyed)) as client:
        client.sendall(head + BODY[:3])
        status(keyed, ALICE)
        keyed.process.terminate()
        while accepts(keyed.port):
            pass
        for _ in range(3):
            keyed.process.send_signal(signal.SIGHUP)
        client.sendall(BODY[3:])
        assert b'"step":1' in rest(client)
    while keyed.process.poll() is None:
        keyed.process.send_signal(number)
    assert keyed.process.returncode == 0
    assert keyed.process.communicate()[1] == ""


# -- certificates


def presented(port: int, trusted: Path) -> bytes:
    """The certificate that a new client gets, which has to be the trusted one."""
    context = ssl.create_default_context(cafile=trusted)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        return client.getpeercert(binary_form=True) or b""


def der(file: Path) -> bytes:
    """The certificate in a file."""
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@pytest.fixture
def pair(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key, in files that a test may change."""
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file in files:
        file.write_bytes((folder / file.name).read_bytes())
    return files


def replaced(folder: Path, pair: tuple[Path, Path]) -> None:
    """Put another certificate and its key into the files."""
    for file in pair:
        file.write_bytes((folder / f"other-{file.name}").read_bytes())


@needs_openssl
def test_a_new_certificate_is_for_new_connections(folder: Path, pair: tuple[Path, Path], start_server: Start) -> None:
    """After SIGHUP both listeners show the new certificate; a connection that was open serves on under the old one."""
    flags = ("--tls-certificate", str(pair[0]), "--tls-key", str(pair[1]))
    server = start_server(*flags, "--admin-port", "0")
    ports = server.port, admin_port(server)
    assert {presented(port, folder / "cert.pem") for port in ports} == {der(folder / "cert.pem")}
    old = ssl.create_default_context(cafile=folder / "cert.pem")
    with httpx.Client(base_url=server.url, verify=old) as kept:
        assert kept.get("/healthz").status_code == 200
        replaced(folder, pair)
        (logged,) = hang_up(server)
        assert f"SIGHUP: --tls-certificate {pair[0]} read again; new connections get it" in logged
        assert {presented(port, folder / "other-cert.pem") for port in ports} == {der(folder / "other-cert.pem")}
        assert kept.get("/healthz").status_code == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            presented(server.port, folder / "cert.pem")
    server.process.terminate()
    assert server.process.wait(20) == 0


@needs_openssl
@pytest.mark.parametrize("fault", ["key of another", "garbage", "missing", "encrypted", "pipe"])
def test_a_faulty_certificate_changes_nothing(
    folder: Path, pair: tuple[Path, Path], start_server: Start, fault: str
) -> None:
    """A certificate that would be refused at the start is an error in the log, and the old one is shown still."""
    certificate, key = pair
    server = start_server("--tls-certificate", str(certificate), "--tls-key", str(key))
    if fault in ("missing", "pipe"):
        key.unlink()
        if fault == "pipe":
            os.mkfifo(key)
    else:
        source = {"key of another": "other-cert.pem", "garbage": "key.pem", "encrypted": "encrypted-key.pem"}[fault]
        (key if fault == "encrypted" else certificate).write_bytes((folder / source).read_bytes())
    (logged,) = hang_up(server)
    assert " ERROR " in logged
    assert "The certificate stays as it was." in logged
    assert str(key) in logged
    assert presented(server.port, folder / "cert.pem") == der(folder / "cert.pem")
    if not key.exists() or fault != "pipe":
        replaced(folder, pair)
        hang_up(server)
        assert presented(server.port, folder / "other-cert.pem") == der(folder / "other-cert.pem")


@needs_openssl
def test_a_faulty_certificate_does_not_keep_keys_from_being_read(
    folder: Path, pair: tuple[Path, Path], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys and certificates are read each for themselves."""
    keys = Keys(file)
    config = SimpleNamespace(ssl=server_context(*pair), tls_files=pair)
    before = config.ssl
    pair[1].write_text("")
    file.write_text(line("carol", NEW))
    with caplog.at_level(logging.INFO):
        Renewal([keys], [config])()  # type: ignore[list-item]
    assert keys.find(NEW).name == "carol"
    assert config.ssl is before
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
