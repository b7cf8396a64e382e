"""The command line: its flags, their bounds, its help."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from arraylstm_serve import cli

from .commands import Refusal, run


@pytest.mark.parametrize(
    ("flag", "value", "bound"),
    [
        ("--session-ttl", "315360001.0", "<= 315360000"),
        ("--shutdown-timeout", "315360001", "<= 315360000"),
        ("--max-answer-bytes", "0", ">= 1"),
        ("--max-pending", str(10**30), "<= 1000000000000"),
        ("--max-items", str(10**30), "<= 1000000000000"),
        ("--max-batch", "4097", "<= 4096"),
        ("--max-batch", str(10**30), "<= 4096"),
        ("--threads", "1025", "<= 1024"),
    ],
)
def test_a_bound_has_bounds(bundle_path: Path, refusal: Refusal, flag: str, value: str, bound: str) -> None:
    """A setting out of its range is refused with status 2, by its flag, its value and what is allowed."""
    said = refusal(str(bundle_path), flag, value, COLUMNS="200")
    assert f'Invalid value "{value}" for {flag}. Must be {bound}' in said


@pytest.mark.parametrize("arguments", [[], ["b", "--port", "65536"], ["b", "--device", "tpu"], ["b", "--nope"]])
def test_a_bad_command_line_is_status_2(arguments: list[str]) -> None:
    """A flag unknown or out of range, or no bundle at all, ends with status 2."""
    assert run(*arguments).returncode == 2


def test_settings_come_from_flags_and_variables(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is taken from its flag, else from its ARRAYLSTM_ variable, else from its default."""
    served: list[cli.Settings] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: served.append(settings))
    monkeypatch.setenv("ARRAYLSTM_PORT", "1234")
    monkeypatch.setenv("ARRAYLSTM_SESSION_TTL", "2.5")
    monkeypatch.setattr(sys, "argv", ["arraylstm-serve", str(bundle_path), "--port", "4321"])
    assert cli.main() == 0
    assert (served[0].port, served[0].session_ttl, served[0].max_batch) == (4321, 2.5, 64)


def test_help_explains_every_setting() -> None:
    """--help lists each setting with its flag, its variable and its explanation."""
    text = run("--help", COLUMNS="200").stdout
    for name in cli.Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
        assert f"ARRAYLSTM_{name.upper()}" in text
    assert "Seconds without use after which a session expires" in text


def test_version_is_the_distributions() -> None:
    """--version prints the version of the installed distribution."""
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, cli.__version__)
