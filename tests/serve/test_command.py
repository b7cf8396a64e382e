"""The command line: its flags, their bounds, its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arraylstm_serve import Bundle, cli
from arraylstm_serve.errors import BundleError

from .bundles import write_bundle
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


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The bundles that the command, which runs in an empty folder, would serve."""
    paths: list[Path] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: paths.append(path.resolve()))
    monkeypatch.setattr(sys, "argv", ["arraylstm-serve"])
    monkeypatch.chdir(tmp_path)
    return paths


@pytest.mark.parametrize("inside", [False, True])
def test_the_only_bundle_here_needs_no_name(
    served: list[Path],
    tmp_path: Path,
    inside: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without argument it is taken, and named; so is the folder itself if that is the bundle."""
    write_bundle(tmp_path / "mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "model.pt").touch()
    if inside:
        monkeypatch.chdir(tmp_path / "mine")
    assert cli.main() == 0
    assert served == [tmp_path / "mine"]
    assert capsys.readouterr().err == "arraylstm-serve: takes the bundle mine, the only one here\n"


def test_the_variable_names_the_bundle_before_it_is_looked_for(
    served: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ARRAYLSTM_BUNDLE is the argument."""
    write_bundle(tmp_path / "mine")
    monkeypatch.setenv("ARRAYLSTM_BUNDLE", str(tmp_path / "elsewhere"))
    assert cli.main() == 0
    assert served == [tmp_path / "elsewhere"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "there is no bundle in this folder; name one, a folder that arraylstm-export wrote."),
        (["a", "b c"], "there are 2 bundles in this folder; name one of them: a, 'b c'."),
        (
            ["my net.pt"],
            "there is no bundle in this folder, but a model: 'my net.pt'; export it first, "
            "`arraylstm-export 'my net.pt'`, then `arraylstm-serve 'my net'`.",
        ),
    ],
)
def test_without_a_bundle_it_says_what_it_found(
    refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], said: str
) -> None:
    """Status 2, one line, and the commands to give."""
    for name in names:
        if "." in name:
            (tmp_path / name).touch()
        else:
            write_bundle(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert refusal() == f"arraylstm-serve: {said}\n"


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.pth"])
def test_a_model_is_to_be_exported_first(tmp_path: Path, name: str) -> None:
    """Given in place of a bundle, it is told with the very commands."""
    (tmp_path / name).touch()
    with pytest.raises(
        BundleError, match=rf"{name} is a model, .*`arraylstm-export .*{name}`, then `arraylstm-serve .*l`"
    ):
        Bundle.load(tmp_path / name)


def test_a_console_without_a_character_does_not_fail_a_start(bundle_path: Path, tmp_path: Path) -> None:
    """The path of a socket is in the greeting, and shows an escape there."""
    program = (
        "import sys, threading, os, signal\n"
        "sys.argv[0] = 'arraylstm-serve'\n"
        "threading.Timer(8, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "from arraylstm_serve.__main__ import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", program, str(bundle_path), "--uds", str(tmp_path / "größe.sock")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"gr\xf6\xdfe.sock" in done.stdout
