"""The variables that a server is started with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from arraylstm_serve import cli
from arraylstm_serve.settings import NAMES

from ..servers import ServerProcess, Start
from .commands import Refusal, run

LINKS = {
    "ARRAYLSTM_SERVICE_HOST": "10.0.0.1",
    "ARRAYLSTM_SERVICE_PORT": "8080",
    "ARRAYLSTM_SERVICE_PORT_HTTP": "8080",
    "ARRAYLSTM_PORT": "tcp://10.0.0.1:8080",
    "ARRAYLSTM_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "ARRAYLSTM_PORT_8080_TCP_PROTO": "tcp",
    "ARRAYLSTM_PORT_8080_TCP_PORT": "8080",
    "ARRAYLSTM_PORT_8080_TCP_ADDR": "10.0.0.1",
    "ARRAYLSTM_REDIS_SERVICE_HOST": "fd00::1",
    "ARRAYLSTM_REDIS_PORT": "udp://[fd00::1]:6379",
    "ARRAYLSTM_REDIS_PORT_6379_UDP": "udp://[fd00::1]:6379",
}
"""What Kubernetes sets where Services are called arraylstm and arraylstm-redis."""


def logged(server: ServerProcess) -> list[dict[str, Any]]:
    """The lines that a server has logged as JSON, once it has stopped."""
    server.process.terminate()
    return [json.loads(line) for line in server.process.communicate()[1].splitlines()]


def test_links_to_services_are_no_settings(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Kubernetes's variables the server starts as without them; one line, no warning, names them."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    (line,) = logged(start_server("--log-format", "json"))
    assert line["level"] == "INFO"
    assert sorted(line["message"].partition(": ")[2].split(", ")) == sorted(LINKS)


def test_a_link_to_a_service_leaves_the_port_at_its_default(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ARRAYLSTM_PORT in Kubernetes's form sets no port, and other settings are taken from variables still."""
    served: list[cli.Settings] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: served.append(settings))
    monkeypatch.setattr("sys.argv", ["arraylstm-serve", str(bundle_path)])
    for name, value in (LINKS | {"ARRAYLSTM_HOST": "localhost"}).items():
        monkeypatch.setenv(name, value)
    assert cli.main() == 0
    assert (served[0].host, served[0].port) == ("localhost", 8080)


@pytest.mark.parametrize("value", ["http://10.0.0.1:8080", "tcp", "8080x", ""])
def test_a_port_of_another_form_is_refused(bundle_path: Path, refusal: Refusal, value: str) -> None:
    """What is neither a port nor a link is told by the variable and its value, and the status is 2."""
    said = refusal(str(bundle_path), ARRAYLSTM_PORT=value, COLUMNS="200")
    assert f'ARRAYLSTM_PORT from env: unable to convert "{value}" into int' in said


def test_a_variable_that_is_no_setting_is_warned_of(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is logged with the nearest setting, one like none with where to look; settings are not."""
    for name in ("ARRAYLSTM_MAX_SESSION", "ARRAYLSTM_ZZZ", "ARRAYLSTM_THREADS", "ARRAYLSTMX", "SESSION_TTL"):
        monkeypatch.setenv(name, "1")
    lines = logged(start_server("--log-format", "json"))
    assert [(line["level"], line["message"]) for line in lines] == [
        ("WARNING", "ARRAYLSTM_MAX_SESSION is not a setting; did you mean ARRAYLSTM_MAX_SESSIONS?"),
        ("WARNING", "ARRAYLSTM_ZZZ is not a setting; arraylstm-serve --help lists them all"),
    ]


def test_what_help_names_is_known() -> None:
    """The variables that nothing is said of are those of --help: the settings', and the bundle's."""
    named = re.findall(r"ARRAYLSTM_[A-Z0-9_]+", run("--help", COLUMNS="200").stdout)
    assert sorted(named) == sorted(f"ARRAYLSTM_{name}" for name in NAMES)
