"""The command `arraylstm-serve`."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from arraylstm_serve import __version__
from arraylstm_serve.api.scopes import Scope
from arraylstm_serve.bundle.load import only_bundle
from arraylstm_serve.errors import StartupError
from arraylstm_serve.http import auth
from arraylstm_serve.replicas.supervisor import supervise
from arraylstm_serve.server.process import serve
from arraylstm_serve.settings import VARIABLE_PREFIX, Settings, Variables

BAD_INPUT = 2

app = App(
    name="arraylstm-serve",
    help="Serve an exported model over HTTP and keep its recurrent state for each session.",
    version=__version__,
    config=Variables(VARIABLE_PREFIX, command=False),
    result_action="return_int_as_exit_code_else_zero",
)


@app.default
def run(bundle: Path | None = None, /, *, settings: Settings = Settings()) -> int:
    """Serve a bundle until told to stop.

    Args:
        bundle: the folder that arraylstm-export wrote. Without it, the only bundle in the current folder.
        settings: how to serve.
    """
    try:
        if bundle is None:
            bundle = only_bundle(Path())
            sys.stderr.write(f"arraylstm-serve: takes the bundle {bundle.resolve().name}, the only one here\n")
        return serve_all(bundle, settings)
    except StartupError as error:
        sys.stderr.write(f"arraylstm-serve: {error}\n")
        return BAD_INPUT


def serve_all(bundle: Path, settings: Settings) -> int:
    """Run one server, or as many as --replicas says; return the exit status.

    Raises:
        StartupError: the settings, or what they name, cannot be used.
    """
    if settings.replicas > 1:
        return supervise(bundle, settings)
    if settings.balancer != Settings.balancer:
        raise StartupError(f"--balancer {settings.balancer} is for several servers; give --replicas too.")
    serve(bundle, settings)
    return 0


@app.command
def make_key(name: str, /, *, scope: Scope = Scope.EVERYTHING) -> int:
    """Make an API key. Print its line for the --api-keys or --admin-keys file, and the key itself on standard error.

    Args:
        name: the owner of the key; each name has its own sessions.
        scope: how much the key allows. read-only allows what changes nothing, metrics only /metrics and /v1/stats.
    """
    try:
        key, line = auth.make_key(name, scope)
    except ValueError as error:
        sys.stderr.write(f"arraylstm-serve: {error}\n")
        return BAD_INPUT
    sys.stderr.write(f"the key, for the client; it is not shown again: {key}\n")
    sys.stdout.write(f"{line}\n")
    return 0


def main() -> int:
    """Run the command line; 0 after a clean stop, 2 for bad input."""
    return int(app(sys.argv[1:]))
