"""Run the load over a deployment and check it: `python -m tests.faults.deployments NAME --seconds 600`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..serve.bundles import write_bundle
from ..serve.edge.proxies import haproxy_of_replicas, nginx_of_replicas
from ..serve.stores.conftest import DURABLE
from ..serve.stores.servers import cluster, served
from ..serve.test_admin import admin_port
from .trial import Load, Replica, seen


def sqlite(stack: ExitStack, bundle: Path, folder: Path) -> str:
    """One server and its file."""
    return _servers(stack, bundle, f"sqlite:{folder / 'sessions.db'}", 1)[0].url


def nginx(stack: ExitStack, bundle: Path, folder: Path) -> str:
    """Two servers over a Redis, and nginx that gives them requests in turn."""
    redis = stack.enter_context(served("redis", *DURABLE))
    servers = _servers(stack, bundle, f"redis://{redis.address}/0", 2)
    return stack.enter_context(
        nginx_of_replicas(folder / "nginx", [server.port for server in servers], by_session=False)
    )


def haproxy(stack: ExitStack, bundle: Path, folder: Path) -> str:
    """Two servers over a Redis, and HAProxy that keeps a session on one of them."""
    redis = stack.enter_context(served("redis", *DURABLE))
    servers = _servers(stack, bundle, f"redis://{redis.address}/0", 2, "--admin-port", "0")
    ports, admins = [server.port for server in servers], [admin_port(server) for server in servers]
    url = stack.enter_context(haproxy_of_replicas(folder, ports, admins, by_session=True))
    time.sleep(3)  # until its checks have found the servers
    return url


def valkey_cluster(stack: ExitStack, bundle: Path, folder: Path) -> str:
    """Two servers over a Valkey cluster of three, and nginx that gives them requests in turn."""
    nodes = stack.enter_context(cluster("valkey", options=DURABLE))
    servers = _servers(stack, bundle, f"valkey+cluster://{nodes[0].address},{nodes[1].address}", 2)
    return stack.enter_context(
        nginx_of_replicas(folder / "nginx", [server.port for server in servers], by_session=False)
    )


DEPLOYMENTS: dict[str, Callable[[ExitStack, Path, Path], str]] = {
    "sqlite": sqlite,
    "nginx": nginx,
    "valkey-cluster": valkey_cluster,
    "haproxy": haproxy,
}


def _servers(stack: ExitStack, bundle: Path, store: str, count: int, *flags: str) -> list[Replica]:
    flags = ("--sessions", store, "--forwarded-allow-ips", "127.0.0.1", *flags)
    servers = []
    for _ in range(count):
        servers.append(Replica(bundle, *flags))
        stack.callback(servers[-1].stop)
    return servers


@contextmanager
def deployed(name: str, bundle: Path, folder: Path) -> Iterator[str]:
    """Run a deployment, and yield its URL."""
    with ExitStack() as stack:
        yield DEPLOYMENTS[name](stack, bundle, folder)


def main() -> int:
    """Run what the command line names; return 1 if the checker found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.deployments", description=__doc__)
    parser.add_argument("name", choices=DEPLOYMENTS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("-o", "--output", type=Path, help="where to keep the history")
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        bundle, file = write_bundle(folder / "bundle"), options.output or folder / "history.jsonl"
        with deployed(options.name, bundle, folder) as url:
            load = Load(bundle, [url], file, seconds=options.seconds, workers=options.workers)
            load.process.wait()
        result = seen(bundle, file)
        print(f"{options.name}, {options.seconds:.0f} s: {result}")
        for verdict in result.verdicts:
            print(verdict)
        return bool(result.verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
