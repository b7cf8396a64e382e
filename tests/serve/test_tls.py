"""HTTPS and WSS with a certificate that the test makes."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from ..servers import ServerProcess
from .test_server import run

Start = Callable[..., ServerProcess]

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
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with closing(trust.wrap_socket(plain, server_hostname="127.0.0.1")) as client:
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
