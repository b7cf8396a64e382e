"""One attack on a server of its own: start it, measure its victim, attack, measure again, stop it."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from hostile.client import newcomer_is_answered, statuses
from hostile.processes import TrialError, asked, attacking, victim_of
from hostile.registry import Attack
from hostile.result import Result
from hostile.serving import Serving, Usage, serving
from hostile.watch import NEWCOMER, NEWCOMER_WAITS, watching
from hostile.wire import Target

from arraylstm_serve.http.auth import make_key

_CALM = 20.0  # seconds after an attack within which a newcomer must be answered


@dataclass(frozen=True)
class Plan:
    """How to run every trial."""

    seconds: float
    """Length of an attack."""
    quiet: float
    """Length of the measurement before it."""
    server_core: int
    client_core: int


def trial(attack: Attack, keys: bool, bundle: Path, plan: Plan) -> Result:
    """Run an attack on a server that asks for API keys or does not.

    Raises:
        NotStartedError: the server did not start.
        TrialError: the victim or the attacker did not start, or did not end.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        owners, options = _keys(folder) if keys else ((None, None), [])
        options += attack.flags
        certificate = _certificate(folder) if attack.tls else None
        options += ["--tls-certificate", str(certificate)] if certificate else []
        with serving(bundle, plan.server_core, folder, options) as server:
            ours, theirs = (Target(server.port, some_items(bundle), owner, certificate) for owner in owners)
            with victim_of(ours, plan.client_core) as victim:
                return _measured(attack, keys, server, (ours, theirs), victim, plan)


def _measured(
    attack: Attack, keys: bool, server: Serving, targets: tuple[Target, Target], victim: Pipe, plan: Plan
) -> Result:
    ours, theirs = targets
    quiet = asked(victim, plan.quiet)
    server.forget()
    counted = statuses(ours)
    before = _used(server)
    with attacking(attack, theirs, plan.client_core), watching(server, ours) as watch:
        during = asked(victim, plan.seconds)
    return Result(
        attack=attack,
        keys=keys,
        quiet=quiet,
        during=during,
        newcomers=watch.newcomers,
        busy=watch.busy,
        answers=_calms_down(server, ours),
        statuses=statuses(ours) - counted,
        after=asked(victim, plan.quiet / 4),
        lost=asked(victim, None),
        promised=server.promised,
        before=before,
        highest=watch.most(before),
        settled=server.usage(),
        end=server.stop(),
    )


def some_items(bundle: Path) -> tuple[Any, ...]:
    """Return up to a hundred items of a bundle's model: their labels, or their ids if they have none."""
    labels = json.loads((bundle / "vocabulary.json").read_bytes())["labels"]
    count = json.loads((bundle / "manifest.json").read_bytes())["model"]["num_items"]
    return tuple(range(min(count, 100)) if labels is None else labels[:100])


def _keys(folder: Path) -> tuple[tuple[str, str], list[str]]:
    """Return the victim's key and the attacker's, and the flags of a server that knows both."""
    (ours, our_line), (theirs, their_line) = make_key("victim"), make_key("attacker")
    file = folder / "keys"
    file.write_text(f"{our_line}\n{their_line}\n")
    file.chmod(0o600)
    return (ours, theirs), ["--api-keys", str(file)]


def _certificate(folder: Path) -> Path:
    """Make a certificate of the loopback address; its private key is in the same file."""
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=edge"
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make.split(), *files], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


def _used(server: Serving) -> Usage:
    usage = server.usage()
    if usage is None:
        raise TrialError("the server has ended before the attack")
    return usage


def _calms_down(server: Serving, target: Target) -> bool:
    """Whether a newcomer is answered within the time allowed after an attack."""
    ends = monotonic() + _CALM
    while server.alive and monotonic() < ends:
        if newcomer_is_answered(target, NEWCOMER_WAITS):
            return True
        sleep(NEWCOMER)
    return False
