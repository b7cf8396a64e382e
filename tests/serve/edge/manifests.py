"""Reading the YAML in deploy/, and holding what it sets against the server's real settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from arraylstm_serve import cli
from arraylstm_serve.settings import NAMES, VARIABLE_PREFIX, Settings

from .proxies import DEPLOY

Configure = Callable[..., Settings]


def documents(name: str) -> list[dict[str, Any]]:
    """The documents in a file of deploy/."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Returns the settings that the command makes of variables and flags; a name that is no setting fails."""
    seen: list[Settings] = []

    def take(path: object, settings: Settings) -> None:
        settings.check_admin()
        settings.check_sessions()
        seen.append(settings)

    def settings_of(variables: dict[str, str], *flags: str) -> Settings:
        for name, value in variables.items():
            if name.startswith(VARIABLE_PREFIX):
                assert name.removeprefix(VARIABLE_PREFIX) in NAMES, f"{name} is not a setting"
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cli, "serve", take)
        monkeypatch.setattr(sys, "argv", ["arraylstm-serve", "/bundle", *flags])
        assert cli.main() == 0
        return seen[-1]

    return settings_of
