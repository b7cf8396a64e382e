"""What each replica is told, and which settings cannot be told to several."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.open import runs_on_host
from arraylstm_serve.errors import StartupError
from arraylstm_serve.hosts import LOCAL
from arraylstm_serve.server.memory import demands, memory_limit
from arraylstm_serve.settings import VARIABLE_PREFIX, Settings
from arraylstm_serve.stores.open import is_shared
from arraylstm_serve.text import shown

LAST_PORT = 65535


def check(settings: Settings) -> None:
    """Refuse settings that several servers cannot have.

    Raises:
        StartupError: there is one; the message has the remedy.
    """
    if sys.platform == "win32":
        raise StartupError("--replicas needs Unix's signals; on Windows start the servers one by one.")
    if not is_shared(settings.sessions):
        raise StartupError(
            f"--replicas {settings.replicas} needs a store that servers share, but --sessions "
            f"{shown(settings.sessions.partition(':')[0])} belongs to one server; give --sessions redis://HOST:PORT/DB."
        )


def check_ports(settings: Settings, *, balanced: bool) -> None:
    """Refuse ports that do not leave each replica its own.

    Args:
        settings: the settings.
        balanced: whether nginx has --port, and the replicas sockets.

    Raises:
        StartupError: one of them is 0, there are not enough ports after it, or two listeners would have the same port.
    """
    public = range(settings.port, settings.port + (1 if balanced else settings.replicas))
    ranges = [] if settings.uds else [("--port", public)]
    if settings.admin_port is not None:
        ranges.append(("--admin-port", range(settings.admin_port, settings.admin_port + settings.replicas)))
    for flag, ports in ranges:
        if ports.start == 0:
            raise StartupError(f"--replicas needs ports that stay the same; give {flag} another one than 0.")
        if ports[-1] > LAST_PORT:
            raise StartupError(
                f"{flag} {ports.start} leaves no port for each of {settings.replicas} replicas; give at most "
                f"{LAST_PORT + 1 - len(ports)}."
            )
    if len(ranges) > 1 and set(public) & set(ranges[1][1]):
        raise StartupError(
            f"--port {settings.port} and --admin-port {settings.admin_port} are so close that replicas would share "
            f"ports; leave {settings.replicas} between them."
        )


def check_memory(bundle: Bundle, settings: Settings) -> None:
    """Refuse bounds that one server can keep on this machine, but not all of them together.

    Raises:
        StartupError: they need more memory than there is.
    """
    needed = sum(demands(bundle, settings, on_host=runs_on_host(settings)).values())
    if needed * settings.replicas > memory_limit():
        raise StartupError(
            f"each of {settings.replicas} replicas needs {needed / 1e6:.1f} MB of memory, but there are "
            f"{memory_limit() / 1e6:.1f} MB for all; lower --replicas or --max-sessions."
        )


def replica_settings(settings: Settings, place: int, sockets: Path | None) -> Settings:
    """Return the settings of one replica.

    Args:
        settings: those of all.
        place: which one, from 0.
        sockets: the folder of the sockets that nginx connects to; None without nginx.
    """
    defaults = Settings()
    admin = None if settings.admin_port is None else settings.admin_port + place
    own = replace(settings, replicas=defaults.replicas, balancer=defaults.balancer, admin_port=admin)
    if sockets is not None:  # nginx alone can reach the socket, and says who its client is
        names = settings.allowed_host if settings.hosts is None else (*LOCAL, *settings.allowed_host)
        return replace(own, uds=sockets / str(place), forwarded_allow_ips=("*",), allowed_host=names)
    if settings.uds is not None:
        return replace(own, uds=Path(f"{settings.uds}.{place}"))
    return replace(own, port=settings.port + place)


def environment(settings: Settings, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables from which a server gets these settings, and no others.

    Variables and not flags, because everybody on the machine can see a command's flags: the store's password may be
    among them.
    """
    others = {name: value for name, value in inherited.items() if not name.startswith(VARIABLE_PREFIX)}
    given = {
        f"{VARIABLE_PREFIX}{field.name.upper()}": _written(getattr(settings, field.name))
        for field in fields(settings)
        if getattr(settings, field.name) != field.default
    }
    return others | given


def _written(value: object) -> str:
    """Return a setting's value as its variable has it."""
    return " ".join(value) if isinstance(value, tuple) else str(value)
