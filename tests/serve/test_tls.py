"""HTTPS and WSS with a certificate that the test makes."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from arraylstm_serve.server.open_files import SPARE_FILES

from ..servers import ServerProcess, Start
from ..waiting import until
from .commands import run

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificate, is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate of 127.0.0.1, its key, both in one file, another key, and the key encrypted."""
    folder = tmp_path_factory.mktemp("tls")
    make = f"{OPENSSL} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    for name in ("", "other-"):
        files = ["-keyout", f"{name}key.pem", "-out", f"{name}cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*make.split(), *files], cwd=folder, check=True, capture_output=True)
    for name, form in (("encrypted", []), ("old", ["-traditional"])):
        encrypt = f"{OPENSSL} pkey -in key.pem -out {name}-key.pem -aes256 -passout pass:secret"
        subprocess.run([*encrypt.split(), *form], cwd=folder, check=True, capture_output=True)
    for name in ("", "encrypted-"):
        texts = [(folder / file).read_text() for file in (f"{name}key.pem", "cert.pem")]
        (folder / f"{name}both.pem").write_text("".join(texts))
    return folder


@pytest.fixture
def trust(folder: Path) -> ssl.SSLContext:
    """A client's trust in that certificate alone."""
    return ssl.create_default_context(cafile=folder / "cert.pem")


def test_everything_works_over_tls(folder: Path, start_server: Start, trust: ssl.SSLContext) -> None:
    """With certificate and key the server speaks HTTPS and WSS, and says so in its greeting."""
    server = start_server("--tls-certificate", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    assert server.url.startswith("https://")
    with httpx.Client(base_url=server.url, verify=trust) as client:
        assert client.post("/v1/sessions/u/events", json={"items": ["a"]}).json()["step"] == 1
        large = client.post("/v1/sessions/u/events", content=b" " * 2_000_000)
        assert large.json()["code"] == "payload_too_large"
    with connect(f"wss://127.0.0.1:{server.port}/v1/stream", ssl=trust) as stream:
        stream.send('{"session_id": "u", "items": ["b"]}')
        assert json.loads(stream.recv())["step"] == 2
    server.process.terminate()
    assert server.process.wait(20) == 0
    assert server.process.communicate()[1] == ""


def test_one_file_may_have_both(folder: Path, start_server: Start, trust: ssl.SSLContext) -> None:
    """A certificate file that has the key in it needs no --tls-key."""
    server = start_server("--tls-certificate", str(folder / "both.pem"))
    assert httpx.get(f"{server.url}/healthz", verify=trust).status_code == 200


def test_a_refusal_below_http_reaches_the_client(folder: Path, start_server: Start, trust: ssl.SSLContext) -> None:
    """A slow head is answered 408 over TLS too, and the connection ends."""
    both = str(folder / "both.pem")
    server = start_server("--tls-certificate", both, "--request-timeout", "0.3")
    with closing(trust.wrap_socket(tcp(server), server_hostname="127.0.0.1")) as client:
        client.sendall(b"GET /healthz HT")
        assert b"".join(iter(lambda: client.recv(4096), b"")).startswith(b"HTTP/1.1 408 ")


def test_plain_http_on_a_tls_port_disturbs_nobody(folder: Path, start_server: Start, trust: ssl.SSLContext) -> None:
    """A client that speaks no TLS is hung up on; the next one is served, and the log has no traceback."""
    server = start_server("--tls-certificate", str(folder / "both.pem"))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/healthz")
    assert httpx.get(f"{server.url}/healthz", verify=trust).status_code == 200
    server.process.terminate()
    assert "Traceback" not in server.process.communicate()[1]


# -- connections that do not shake hands ------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[Callable[[ServerProcess], socket.socket]]:
    """Connects to a server and says nothing; the connections end with the test."""
    with ExitStack() as clients:
        yield lambda server: clients.enter_context(closing(tcp(server)))


Silent = Callable[[ServerProcess], socket.socket]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "the beginning of a handshake"])
def test_a_handshake_has_an_end(folder: Path, start_server: Start, silent: Silent, sent: bytes) -> None:
    """A connection that has not shaken hands within --request-timeout is closed."""
    client = silent(start_server("--tls-certificate", str(folder / "both.pem"), "--request-timeout", "0.5"))
    client.sendall(sent)
    assert ended(client)


def test_who_does_not_shake_hands_takes_a_place(
    folder: Path, start_server: Start, trust: ssl.SSLContext, silent: Silent
) -> None:
    """Connections count before they are encrypted; one too many is told so once it is, and closed if it is slow."""
    server = start_server("--tls-certificate", str(folder / "both.pem"), "--max-connections", "2")
    with httpx.Client(base_url=server.url, verify=trust) as client:
        assert client.get("/healthz").status_code == 200
        waiting = silent(server)
        assert ended(silent(server))
        assert httpx.get(f"{server.url}/healthz", verify=trust).json()["code"] == "overloaded"
        assert client.get("/healthz").status_code == 200
        waiting.close()
        until(
            lambda: httpx.get(f"{server.url}/healthz", verify=trust).status_code == 200
        )  # it hears of it a moment later


def test_an_idle_connection_does_not_keep_the_server(folder: Path, start_server: Start, trust: ssl.SSLContext) -> None:
    """Told to stop, the server does not wait --request-timeout for a client that keeps its connection."""
    server = start_server("--tls-certificate", str(folder / "both.pem"), "--request-timeout", "300")
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        client = trust.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        server.process.terminate()
        assert server.process.wait(20) == 0
        client.close()


def test_a_handshake_does_not_keep_the_server(folder: Path, start_server: Start, silent: Silent) -> None:
    """Told to stop, the server closes connections that have not shaken hands, and ends with status 0."""
    server = start_server("--tls-certificate", str(folder / "both.pem"))
    client = silent(server)
    client.sendall(b"\x16")
    server.process.terminate()
    assert server.process.wait(10) == 0
    assert ended(client)
    assert server.process.communicate()[1] == ""


def test_a_request_may_come_with_the_end_of_the_handshake(
    folder: Path, start_server: Start, trust: ssl.SSLContext, silent: Silent
) -> None:
    """The client's last word of the handshake and a request in one piece are both heeded."""
    client = silent(start_server("--tls-certificate", str(folder / "both.pem")))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    encrypted = trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while True:
        try:
            encrypted.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.sendall(outgoing.read())
            incoming.write(client.recv(65_536))
    encrypted.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.sendall(outgoing.read())
    answer = b""
    while b"ok" not in answer:
        incoming.write(client.recv(65_536))
        with suppress(ssl.SSLWantReadError):
            while True:  # head and body may come together, each encrypted by itself
                answer += encrypted.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_refused_client_that_does_not_let_go_is_cut_off(
    folder: Path, start_server: Start, trust: ssl.SSLContext, silent: Silent
) -> None:
    """The end of the encryption, to which the client has to agree, is waited for a moment only after a refusal."""
    both = str(folder / "both.pem")
    server = start_server("--tls-certificate", both)
    plain = silent(server)
    with trust.wrap_socket(plain, server_hostname="127.0.0.1") as client:
        client.sendall(b"no http\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 400"
        with socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM) as below:
            below.settimeout(10)
            assert ended(below)


def test_too_many_handshakes_for_the_open_files_pass(
    folder: Path, start_server: Start, trust: ssl.SSLContext, silent: Silent, shell: Callable[[str, int], Path]
) -> None:
    """Where connections that do not shake hands leave no file to open, the server waits, and serves again later."""
    bound = ("--max-connections", "5", "--request-timeout", "2")
    server = start_server("--tls-certificate", str(folder / "both.pem"), *bound, python=shell("-n", 5 + SPARE_FILES))
    clients = [silent(server) for _ in range(150)]
    assert all(ended(client) for client in clients)
    assert httpx.get(f"{server.url}/healthz", verify=trust).status_code == 200
    server.process.terminate()
    assert server.process.communicate()[1] == ""


def tcp(server: ServerProcess) -> socket.socket:
    """A connection as it is before it is encrypted."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def ended(client: socket.socket) -> bool:
    """Whether the server ends a connection, in good order or not, before the client has waited too long."""
    with suppress(ConnectionResetError):
        while client.recv(65_536):
            pass
    return True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-key", "key.pem"], "--tls-key is given without --tls-certificate"),
        (["--tls-certificate", "nowhere.pem"], "No such file"),
        (["--tls-certificate", "cert.pem"], "cannot be used"),
        (["--tls-certificate", "cert.pem", "--tls-key", "nowhere.pem"], "No such file"),
        (["--tls-certificate", "cert.pem", "--tls-key", "other-key.pem"], "cannot be used"),
        (["--tls-certificate", "key.pem", "--tls-key", "key.pem"], "cannot be used"),
        (["--tls-certificate", "cert.pem", "--tls-key", "encrypted-key.pem"], "the key is encrypted"),
        (["--tls-certificate", "cert.pem", "--tls-key", "old-key.pem"], "the key is encrypted"),
        (["--tls-certificate", "encrypted-both.pem"], "the key is encrypted"),
    ],
    ids=[
        "no certificate",
        "no file",
        "no key",
        "no key file",
        "another's key",
        "no certificate in it",
        "an encrypted key",
        "an encrypted key of the older form",
        "an encrypted key in the certificate's file",
    ],
)
def test_a_certificate_that_cannot_be_used_is_a_fault_at_the_start(
    bundle_path: Path, folder: Path, arguments: list[str], said: str
) -> None:
    """A certificate or key that is missing or does not fit is one line on stderr and status 2."""
    paths = [str(folder / word) if word.endswith(".pem") else word for word in arguments]
    done = run(str(bundle_path), "--port", "0", *paths)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "--tls-certificate" in done.stderr
    assert done.stderr.count("\n") == 1
