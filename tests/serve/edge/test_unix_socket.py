"""A server on a Unix socket: it serves there, and leaves nothing behind."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import unix_connect

from ...servers import Start
from ..commands import Refusal, run
from .proxies import unix_server


def test_a_unix_socket_is_served(bundle_path: Path, tmp_path: Path) -> None:
    """Requests and streams are answered under any name, and the path is gone after the end."""
    path = tmp_path / "socket"
    with unix_server(bundle_path, path) as server:
        with server.client() as client:
            answer = client.post("/v1/sessions/u/events", json={"items": ["a"]}, headers={"Host": "shop.example"})
            assert answer.json()["step"] == 1
        with unix_connect(str(path), "ws://localhost/v1/stream") as stream:
            stream.send(json.dumps({"session_id": "u", "items": ["b"]}))
            assert json.loads(stream.recv())["step"] == 2
        assert server.stop() == ""
    assert not path.exists()


def test_an_abandoned_path_is_taken_over(bundle_path: Path, tmp_path: Path) -> None:
    """The path of a server that was killed is used again; that of one that lives is not, and it lives on."""
    path = tmp_path / "socket"
    with unix_server(bundle_path, path) as first:
        first.process.kill()
        first.process.communicate()
        assert path.exists()
        with unix_server(bundle_path, path) as second:
            refused = run(str(bundle_path), "--uds", str(path))
            assert (refused.returncode, refused.stdout) == (2, "")
            assert refused.stderr == f"arraylstm-serve: cannot listen on --uds {path}: another server does.\n"
            with second.client() as client:
                assert client.get("/readyz").status_code == 200


def test_the_path_of_a_successor_stays(bundle_path: Path, tmp_path: Path) -> None:
    """A server that ends does not remove the path that another one has bound meanwhile."""
    path = tmp_path / "socket"
    with unix_server(bundle_path, path) as server, socket.socket(socket.AF_UNIX) as successor:
        path.unlink()
        successor.bind(str(path))
        server.stop()
        assert path.exists()


@pytest.mark.parametrize("fault", ["file", "folder", "missing", "long"])
def test_a_path_that_cannot_be_used_is_told(bundle_path: Path, tmp_path: Path, fault: str) -> None:
    """A path of something else, or of nothing possible, is one sentence; what is there stays."""
    (tmp_path / "file").write_text("precious")
    path = tmp_path / {"file": "file", "folder": "", "missing": "none/socket", "long": "x" * 200}[fault]
    refused = run(str(bundle_path), "--uds", str(path))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith("arraylstm-serve: cannot listen on --uds ")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("text", ["predict", "/", "/predict/", "/a//b", "/a/../b", "/a b", "/v1", "/docs/x"])
def test_a_root_path_is_a_path(refusal: Refusal, text: str) -> None:
    """A --root-path that is no path, or looks like one of the server's own, is refused at the start."""
    assert "Must " in refusal("bundle", "--root-path", text, COLUMNS="400")


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "300.0.0.1", "127.0.0.1,10.0.0.1"])
def test_a_proxy_is_an_address(refusal: Refusal, text: str) -> None:
    """A --forwarded-allow-ips that is neither address nor network is refused at the start."""
    assert "Must be an IP address" in refusal("bundle", "--forwarded-allow-ips", text, COLUMNS="400")


@pytest.mark.parametrize(
    ("flags", "client"),
    [
        ((), "127.0.0.1"),
        (("--forwarded-allow-ips", "10.0.0.0/8"), "127.0.0.1"),
        (("--forwarded-allow-ips", "10.0.0.0/8", "--forwarded-allow-ips", "127.0.0.1"), "203.0.113.7"),
    ],
)
def test_only_a_named_proxy_is_believed(start_server: Start, flags: tuple[str, ...], client: str) -> None:
    """X-Forwarded-For is taken from the addresses named, and ignored from any other."""
    server = start_server(*flags, "--access-log", "--log-format", "json")
    httpx.get(f"{server.url}/readyz", headers={"X-Forwarded-For": "203.0.113.7"})
    server.process.terminate()
    lines = server.process.communicate(timeout=20)[1].splitlines()
    assert [json.loads(line)["client"] for line in lines if "/readyz" in line] == [client]
