"""A server whose output nobody takes, whose streams are closed, or that is told to stop as it starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from ...waiting import until
from ..bundles import write_bundle
from ..sockets import accepts

BROKEN = {
    "a pipe that is closed": "| true",
    "a full device": "> /dev/full",
    "no output": ">&-",
    "no streams": "<&- >&- 2>&-",
    "full devices": "> /dev/full 2> /dev/full",
}


@contextmanager
def started(folder: Path, redirection: str) -> Iterator[tuple[int, Path]]:
    """A server started by a shell, at a port; the shell writes its status to the file."""
    bundle, status, process = write_bundle(folder / "bundle"), folder / "status", folder / "process"
    port = free_port()
    server = f"'{sys.executable}' -m arraylstm_serve '{bundle}' --port {port}"
    script = f"(echo $$ > /dev/null; {server} & echo $! > '{process}'; wait $!; echo $? > '{status}') {redirection}"
    shell = subprocess.Popen(["bash", "-c", script], stderr=subprocess.DEVNULL)
    try:
        yield port, process
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(process.read_text()), signal.SIGKILL)
        shell.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("kind", BROKEN)
def test_a_greeting_that_cannot_be_printed_ends_nothing(tmp_path: Path, kind: str) -> None:
    """The server serves all the same, and ends with status 0."""
    with started(tmp_path, BROKEN[kind]) as (port, process):
        until(lambda: accepts(port), pause=0.02)
        body = {"items": ["a"]}
        for step in (1, 2):
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/sessions/u/events", json=body)
            assert answer.json()["step"] == step
        os.kill(int(process.read_text()), signal.SIGTERM)
        status = tmp_path / "status"
        until(lambda: status.exists() and status.read_text(), pause=0.02)
        assert status.read_text() == "0\n"


@pytest.mark.parametrize("seconds", [0.25, 0.5, 0.8, 1.2])
def test_a_signal_as_it_starts_is_heeded(bundle_path: Path, seconds: float) -> None:
    """Told to stop in its first second, while it imports, the server ends with status 0 and prints nothing amiss."""
    command = [sys.executable, "-c", PROGRAM, str(bundle_path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"  # Python itself is up
    time.sleep(seconds)
    process.terminate()
    _, logged = process.communicate(timeout=60)
    assert (process.returncode, logged) == (0, "")


PROGRAM = """
import sys
sys.argv[0] = "arraylstm-serve"
from arraylstm_serve import __main__ as entry  # takes a moment; `-m` does no less
print("begun", flush=True)
sys.exit(entry.main())
"""


@pytest.mark.parametrize(("limit", "said"), [(70, "give --max-connections 6, or raise"), (60, "(ulimit -Hn); raise")])
def test_the_advice_about_open_files_can_be_followed(bundle_path: Path, limit: int, said: str) -> None:
    """Where the limit is too low, the bound named as the remedy is one that starts; none is named if none would."""
    done = limited(bundle_path, limit, "137")
    assert (done.returncode, said in done.stderr) == (2, True)
    for advised in re.findall(r"give --max-connections (\d+)", done.stderr):
        assert "open files" not in limited(bundle_path, limit, advised, "--host", "no.such.host.invalid").stderr


def limited(bundle: Path, limit: int, connections: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A server where so many files may be open."""
    command = f'ulimit -n {limit}; exec "{sys.executable}" -m arraylstm_serve "$@"'
    arguments = [str(bundle), "--port", "0", "--max-connections", connections, *flags]
    return subprocess.run(
        ["bash", "-c", command, "bash", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
