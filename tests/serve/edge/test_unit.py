"""The systemd unit in deploy/: systemd understands it, its numbers fit the server's, and its commands work."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arraylstm_serve import cli
from arraylstm_serve.server.open_files import SPARE_FILES
from arraylstm_serve.settings import ADMIN_CONNECTIONS, Settings

from ...servers import Start
from .proxies import DEPLOY

UNIT = DEPLOY / "arraylstm-serve.service"
PROGRAM = "/opt/arraylstm/bin/arraylstm-serve"


@pytest.fixture
def service() -> dict[str, str]:
    """The section [Service]."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    return dict(unit["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say, once the program is one that is there; it does find a mistake."""
    file = tmp_path / UNIT.name
    text = UNIT.read_text().replace(PROGRAM, sys.executable)
    for content, faults in ((text, 0), (text.replace("TimeoutStopSec=40", "TimeoutStopSec=forty"), 1)):
        file.write_text(content)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False, timeout=60
        )
        said = [line for line in done.stderr.splitlines() if UNIT.name in line]
        assert len(said) == faults, done.stderr


def test_the_units_numbers_fit_the_servers(service: dict[str, str]) -> None:
    """There is time for --shutdown-timeout, there are files for all connections, and bad input is not tried again."""
    defaults = Settings()
    assert int(service["TimeoutStopSec"]) >= defaults.shutdown_timeout + 5
    assert int(service["LimitNOFILE"]) >= defaults.max_connections + ADMIN_CONNECTIONS + SPARE_FILES
    assert service["RestartPreventExitStatus"] == str(cli.BAD_INPUT)
    assert service["DynamicUser"] == "yes"


def test_the_units_commands_work(service: dict[str, str], bundle_path: Path, start_server: Start) -> None:
    """ExecStart is the program and a bundle, with no flag that there is not; ExecReload makes the server read again."""
    program, *arguments = shlex.split(service["ExecStart"])
    assert (program, len(arguments)) == (PROGRAM, 1)
    server = start_server(*arguments[1:])
    reload = service["ExecReload"].replace("$MAINPID", str(server.process.pid))
    if not Path(shlex.split(reload)[0]).exists():
        pytest.skip("there is no /bin/kill; Debian has it in procps")
    subprocess.run(shlex.split(reload), check=True)
    assert server.process.stderr
    assert "SIGHUP: " in server.process.stderr.readline()
    server.process.terminate()
    assert server.process.wait(20) == 0
