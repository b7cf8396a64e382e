"""A Redis in a network of its own, with a cable to each server that a test can cut. It needs root."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from ..serve.stores.servers import program
from ..waiting import until
from .disks import prepare, run

PORT = 6379


class Network:
    """A network namespace with a Redis, which has an address at the end of each cable."""

    def __init__(self, name: str, cables: int) -> None:
        self.name = name
        self.addresses = [f"10.213.{place}.2" for place in range(cables)]
        for place, address in enumerate(self.addresses):
            ours, theirs = f"{name}o{place}", f"{name}t{place}"
            prepare("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
            run("ip", "address", "add", f"10.213.{place}.1/24", "dev", ours)
            run("ip", "link", "set", ours, "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", theirs)
            run("ip", "-n", name, "link", "set", theirs, "up")

    def cut(self, place: int) -> None:
        """Cut a cable: what is sent is lost, and nobody is told."""
        run("ip", "-n", self.name, "link", "set", f"{self.name}t{place}", "down")

    def heal(self, place: int) -> None:
        """Mend a cable."""
        run("ip", "-n", self.name, "link", "set", f"{self.name}t{place}", "up")


@contextmanager
def network(folder: Path, cables: int, *options: str) -> Iterator[Network]:
    """Run a Redis in a network of its own."""
    name = f"als{secrets.token_hex(2)}"
    prepare("ip", "netns", "add", name)
    try:
        made = Network(name, cables)
        place = ["--port", str(PORT), "--dir", str(folder), "--save", "", "--protected-mode", "no"]
        command = ["ip", "netns", "exec", name, program("redis"), *place, *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: _answers(made.addresses[0]), pause=0.05)
                yield made
            finally:
                process.kill()
    finally:
        run("ip", "netns", "delete", name)


def _answers(address: str) -> bool:
    try:
        with Redis(host=address, port=PORT, protocol=2) as client:
            return bool(client.ping())
    except RedisError:
        return False
