"""The command `arraylstm-serve`, run to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from arraylstm_serve import cli

Refusal = Callable[..., str]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, with some variables set."""
    return subprocess.run(
        [sys.executable, "-m", "arraylstm_serve", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
        timeout=60,  # one that serves after all does not end
    )


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Returns what a wrong command line is told on stderr: status 2, nothing on stdout, nothing served.

    It runs in the process of the test: to start one for every wrong flag takes minutes.
    """

    def refuse(*arguments: str, **variables: str) -> str:
        monkeypatch.setattr(cli, "serve", lambda path, settings: pytest.fail(f"served with {settings}"))
        monkeypatch.setattr(sys, "argv", ["arraylstm-serve", *arguments])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        try:
            status: object = cli.main()
        except SystemExit as error:
            status = error.code
        printed = capsys.readouterr()
        assert (status, printed.out) == (2, "")
        return printed.err

    return refuse
