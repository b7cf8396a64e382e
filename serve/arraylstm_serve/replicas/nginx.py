"""nginx before the replicas: the configuration that deploy/ has, with their sockets in it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from arraylstm_serve.errors import StartupError
from arraylstm_serve.replicas.program import Output, Program, Show
from arraylstm_serve.server.open_files import most_files
from arraylstm_serve.server.sockets import listen
from arraylstm_serve.settings import Settings

_SHIPPED = Path(__file__).with_name("nginx-replicas.conf")
SITE = _SHIPPED if _SHIPPED.exists() else Path(__file__).parents[3] / "deploy" / _SHIPPED.name
"""The configuration: the wheel has it beside this file, the sources in deploy/."""

REPLICAS_A_WORKER = 4
"""How many replicas one process of nginx serves. It takes about a fifth of a replica's CPU time for a request."""

MOST_CONNECTIONS = 32_768
"""Most connections of one process of nginx."""

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""What nginx has folders for, whether it is used or not."""

PROBE = 0.05
"""Seconds between two looks whether nginx listens."""

_AROUND = """\
daemon off;
{user}worker_processes {workers};
worker_rlimit_nofile {files};
pid {pid};
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
access_log off;
{folders}
{site}
}}
"""


class Nginx(Program):
    """nginx, which is ready once it listens.

    Args:
        program: its path.
        settings: the settings of all replicas.
        folder: a folder of our own, for its configuration and its files.
        servers: the replicas' addresses.
        show: passes on its lines.
    """

    def __init__(self, program: str, settings: Settings, folder: Path, servers: Sequence[str], show: Show) -> None:
        with closing(listen(settings.host, settings.port)) as free:
            self._address = free.getsockname()
            self._family = free.family
        file = folder / "nginx.conf"
        file.write_text(configuration(settings, self._listens(), folder, servers))
        command: list[str | Path] = [program, "-c", file, "-p", folder, "-e", "stderr"]
        super().__init__("nginx", command, os.environ, show, signal.SIGQUIT)

    def _listens(self) -> str:
        host, port = self._address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._listens()}"

    async def until_ready(self, output: Output) -> None:
        """See `Program.until_ready`."""
        while not self._answers():
            await asyncio.sleep(PROBE)

    def _answers(self) -> bool:
        with socket.socket(self._family) as probe:
            probe.settimeout(PROBE)
            return probe.connect_ex(self._address) == 0


def find(settings: Settings) -> str | None:
    """Return the path of nginx; None if the settings, or the programs that there are, leave the replicas without it.

    Raises:
        StartupError: --balancer nginx is given, and nginx cannot be used.
    """
    if settings.balancer == "none":
        return None
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    foreign = own_proxy(settings)
    if settings.balancer == "nginx" and foreign:
        raise StartupError(
            f"{foreign} is for a proxy of your own, and --balancer nginx starts another one; give --balancer none."
        )
    if settings.balancer == "nginx" and program is None:
        raise StartupError("--balancer nginx needs nginx on the PATH; install it, or give --balancer none.")
    return None if foreign else program


def own_proxy(settings: Settings) -> str:
    """Return the first flag that is for a proxy of the operator's own, or for none; empty if none is given."""
    given = {
        "--uds": settings.uds,
        "--root-path": settings.root_path,
        "--forwarded-allow-ips": settings.forwarded_allow_ips,
        "--tls-certificate": settings.tls_certificate,
    }
    return next((flag for flag, value in given.items() if value), "")


def configuration(settings: Settings, listens: str, folder: Path, servers: Sequence[str]) -> str:
    """Return a whole configuration of nginx.

    Args:
        settings: the settings of all replicas.
        listens: the address to listen on.
        folder: the folder for nginx's own files.
        servers: the replicas' addresses, as nginx takes them.
    """
    workers = -(-len(servers) // REPLICAS_A_WORKER)
    connections = min(MOST_CONNECTIONS, 2 * len(servers) * settings.max_connections)
    files = min(2 * connections, most_files())
    return _AROUND.format(
        user=_user(),
        workers=workers,
        files=files,
        connections=min(connections, files),
        pid=quoted(f"{folder}/nginx.pid"),
        folders="\n".join(f"{name}_temp_path {quoted(f'{folder}/{name}')};" for name in _TEMPORARY),
        site=site(settings, listens, servers),
    )


def site(settings: Settings, listens: str, servers: Sequence[str]) -> str:
    """Return the configuration that deploy/ has, for these replicas, by session."""
    lines = "\n".join(f"    server {quoted(address)} max_fails=1 fail_timeout=5s;" for address in servers)
    answer = max(60, round(settings.request_timeout + settings.store_timeout + 28))
    values = {
        r"    # hash (.*;)": r"    hash \1",
        r"(?m)^    server one:8080 .*\n    server two:8080 .*$": lines.replace("\\", r"\\"),
        r"keepalive_timeout 60s;": f"keepalive_timeout {max(1, round(min(60.0, 0.8 * settings.keep_alive)))}s;",
        r"listen 80;": f"listen {listens};",
        r"proxy_read_timeout 60s;": f"proxy_read_timeout {answer}s;",
    }
    return replaced(SITE.read_text(), values)


def replaced(text: str, values: Mapping[str, str]) -> str:
    """Return a text with other words in the place of some, each of which it must have exactly once.

    Raises:
        ValueError: it has not.
    """
    for pattern, words in values.items():
        text, count = re.subn(pattern, words, text)
        if count != 1:
            raise ValueError(f"{SITE} has {count} lines like {pattern!r}; there must be one")
    return text


def quoted(text: str) -> str:
    """Return a text as one word of nginx's configuration."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _user() -> str:
    """Return the directive that lets nginx's processes be root's where it runs as root: so they reach the sockets."""
    return "user root root;\n" if os.getuid() == 0 else ""
