"""nginx in front of a server that listens on a Unix socket, and both ends of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

CONFIGURATION = """
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
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port};
        location /predict/ {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For 203.0.113.7;
            proxy_set_header X-Forwarded-Proto https;
        }}
    }}
}}
"""


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
def nginx(folder: Path, upstream: str) -> Iterator[str]:
    """Run nginx, which passes what is under /predict/ on to a server; yield its URL."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = "user root;" if os.getuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=upstream, user=user))
    process = subprocess.Popen(
        [program, "-c", file, "-p", folder, "-e", folder / "error.log"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
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
