"""Proxies in front of a server, run from the files in deploy/, and a server on a Unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"

NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
"""What a distribution's nginx.conf does, for a folder; deploy/nginx.conf is the site."""


def filled(name: str, values: dict[str, str]) -> str:
    """A file of deploy/ with other values in place of some of its own, each of which it must have."""
    text = (DEPLOY / name).read_text()
    for own, other in values.items():
        assert own in text, f"{name} does not have {own!r}"
        text = text.replace(own, other)
    return text


class UnixServer:
    """A running `arraylstm-serve` on a Unix socket."""

    def __init__(self, bundle: Path, path: Path, *arguments: str) -> None:
        self.path = path
        command = [sys.executable, "-m", "arraylstm_serve", bundle, "--uds", path, "--device", "cpu", *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout
        self.greeting = ""
        for line in self.process.stdout:
            self.greeting += line
            if "serving" in line:
                break
        assert f"serving   unix:{path}" in self.greeting, self.process.communicate()

    def client(self) -> httpx.Client:
        """A client of the socket."""
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.path)), base_url="http://localhost")

    def stop(self) -> str:
        """Ask the process to stop; return what it logged."""
        self.process.terminate()
        logged = self.process.communicate(timeout=20)[1]
        assert self.process.returncode == 0
        return logged


@contextmanager
def unix_server(bundle: Path, path: Path, *arguments: str) -> Iterator[UnixServer]:
    """Run a server on a Unix socket."""
    server = UnixServer(bundle, path, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@contextmanager
def nginx(folder: Path, path: Path, *, passed_on: bool = False) -> Iterator[str]:
    """Run nginx as deploy/nginx.conf says, in front of the server at a path; yield its URL.

    The client's address is 203.0.113.7, and it came over https. `passed_on`: nginx leaves /predict in the path.
    """
    port = free_port()
    values = {
        "unix:/run/arraylstm/socket": f"unix:{path}",
        "listen 80;": f"listen 127.0.0.1:{port};",
        "$remote_addr;": "203.0.113.7;",
        "$scheme;": "https;",
    }
    if passed_on:
        values["http://arraylstm/;"] = "http://arraylstm;"
    with _nginx(folder, filled("nginx.conf", values), port) as url:
        yield url


@contextmanager
def nginx_of_replicas(folder: Path, servers: Sequence[int], *, by_session: bool) -> Iterator[str]:
    """Run nginx as deploy/nginx-replicas.conf says, in front of two servers at their ports; yield its URL."""
    port = free_port()
    values = {"listen 80;": f"listen 127.0.0.1:{port};"}
    values |= {f"{name}:8080": f"127.0.0.1:{at}" for name, at in zip(("one", "two"), servers, strict=True)}
    if by_session:
        values["# hash "] = "hash "
    with _nginx(folder, filled("nginx-replicas.conf", values), port) as url:
        yield url


@contextmanager
def _nginx(folder: Path, site: str, port: int) -> Iterator[str]:
    program = _program("nginx")
    folder.mkdir()
    (folder / "site.conf").write_text(site)
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, user="user root;" if os.getuid() == 0 else ""))
    with _running([program, "-c", file, "-p", folder, "-e", folder / "error.log"], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def haproxy(folder: Path, server: int, admin: int) -> Iterator[str]:
    """Run HAProxy as deploy/haproxy.cfg says, in front of the server at two ports; yield its URL."""
    with _haproxy(folder, "haproxy.cfg", {"127.0.0.1:8080 port 9090": f"127.0.0.1:{server} port {admin}"}) as url:
        yield url


@contextmanager
def haproxy_of_replicas(
    folder: Path, servers: Sequence[int], admins: Sequence[int], *, by_session: bool
) -> Iterator[str]:
    """Run HAProxy as deploy/haproxy-replicas.cfg says, in front of two servers at two ports each; yield its URL."""
    values = {
        f"{name}:8080 port 9090": f"127.0.0.1:{server} port {admin}"
        for name, server, admin in zip(("one", "two"), servers, admins, strict=True)
    }
    if by_session:
        values["balance roundrobin\n"] = "\n"
        values |= {f"# {words}": words for words in ("http-request set-var", "balance hash", "hash-type")}
    with _haproxy(folder, "haproxy-replicas.cfg", values) as url:
        yield url


@contextmanager
def _haproxy(folder: Path, name: str, values: dict[str, str]) -> Iterator[str]:
    program = _program("haproxy")
    port = free_port()
    values = values | {"bind :80": f"bind 127.0.0.1:{port}"}
    if os.getuid():
        values |= {"    user haproxy\n": "", "    group haproxy\n": ""}
    file = folder / "haproxy.cfg"
    file.write_text(filled(name, values))
    with _running([program, "-db", "-f", file], port):
        yield f"http://127.0.0.1:{port}"


def _program(name: str) -> str:
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not program:
        pytest.skip(f"{name} is not installed")
    return program


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str | Path], port: int) -> Iterator[None]:
    """Run a proxy from the time when it listens."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        _wait(port, process)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise TimeoutError(port)
