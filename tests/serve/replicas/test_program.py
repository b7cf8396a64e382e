"""A program that is kept running: its lines, its pauses, its end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from arraylstm_serve.errors import StartupError
from arraylstm_serve.replicas import program
from arraylstm_serve.replicas.program import Output, Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these tests look for processes in /proc")


class Shell(Program):
    """A shell that is ready once it has said so."""

    def __init__(self, script: str) -> None:
        self.lines: list[str] = []
        command = ["/bin/sh", "-c", script]
        super().__init__("the shell", command, os.environ, lambda line: self.lines.append(line.decode()))

    async def until_ready(self, output: Output) -> None:
        await output.spoke


async def kept_until(shell: Shell, seen: Callable[[], object]) -> None:
    """Keep a program running until something is so, which comes before the program is given up; then stop it."""
    keeping = asyncio.create_task(shell.keep())
    while not seen():
        assert not keeping.done()
        await asyncio.sleep(0.01)
    shell.stop()
    await asyncio.wait_for(keeping, 20)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(program, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(program, "LONGEST_PAUSE", 0.04)


def test_one_that_ends_is_started_again_after_longer_pauses(caplog: pytest.LogCaptureFixture) -> None:
    """Each end is logged with its reason and the pause, which doubles up to the longest."""

    async def scenario() -> list[str]:
        shell = Shell("echo ready; sleep 0.3; kill -9 $$")
        await kept_until(shell, lambda: len(caplog.messages) >= 4)
        return shell.lines

    lines = asyncio.run(scenario())
    pauses = [message.partition("again in ")[2] for message in caplog.messages[:4]]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]
    assert caplog.messages[0].startswith("the shell was ended by SIGKILL; ")
    assert len(lines) in (4, 5)


def test_one_that_is_calm_begins_with_the_first_pause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long run the next pause is short again."""
    monkeypatch.setattr(program, "CALM", 0.0)

    async def scenario() -> None:
        shell = Shell("echo ready; sleep 0.3; exit 3")
        await kept_until(shell, lambda: len(caplog.messages) >= 3)

    asyncio.run(scenario())
    assert set(caplog.messages[:3]) == {"the shell has ended with status 3; it is started again in 0.01 s"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo fault >&2; exit 2", "the shell has ended with status 2 before it was ready; the lines above say why"),
        ("kill -15 $$", "the shell was ended by SIGTERM before it was ready"),
    ],
)
def test_one_that_was_never_ready_is_not_started_again(script: str, said: str) -> None:
    """Its end is an error for the person who started it."""
    with pytest.raises(StartupError, match=said):
        asyncio.run(_keep(script))


async def _keep(script: str) -> None:
    await asyncio.wait_for(Shell(script).keep(), 20)


def test_one_that_cannot_be_started_is_an_error() -> None:
    """A line has the system's words and the path, and the start fails."""

    async def scenario() -> list[str]:
        shell = Shell("")
        shell._command = ["/nowhere/at/all"]
        with pytest.raises(StartupError, match="has ended with status 1 before it was ready"):
            await shell.keep()
        return shell.lines

    assert asyncio.run(scenario()) == ["/nowhere/at/all cannot be started: No such file or directory"]


def test_lines_come_whole() -> None:
    """A line comes once, however it was written: in pieces, long, or without an end."""

    async def scenario() -> list[str]:
        shell = Shell("printf ready; printf ' now\\nsecond\\n'; head -c 300000 /dev/zero | tr '\\0' x; sleep 60")
        keeping = asyncio.create_task(shell.keep())
        await asyncio.wait_for(shell.ready.wait(), 20)
        shell.kill()
        await asyncio.wait_for(keeping, 20)
        return shell.lines

    lines = asyncio.run(scenario())
    assert lines[:2] == ["ready now", "second"]
    assert all(set(line) == {"x"} for line in lines[2:])


def test_what_a_program_leaves_behind_is_ended() -> None:
    """A process that outlives the one that started it, and holds its pipes open, does not hold up the next start."""

    async def scenario() -> int:
        shell = Shell("sleep 600 & echo $!; sleep 0.3; exit 1")
        await kept_until(shell, lambda: len(shell.lines) >= 2)
        return int(shell.lines[0])

    left = asyncio.run(asyncio.wait_for(scenario(), 30))
    with suppress(FileNotFoundError):
        assert " Z " in Path(f"/proc/{left}/stat").read_text()  # a zombie, until somebody asks for its status


def test_a_hangup_waits_until_a_program_is_ready() -> None:
    """SIGHUP would end a program that has no handler yet, so it is passed on later, and not lost."""

    async def scenario() -> list[str]:
        shell = Shell("sleep 0.3; trap 'echo renewed; exec sleep 60' HUP; echo ready; while :; do sleep 0.05; done")
        asyncio.get_running_loop().call_later(0.1, shell.hang_up)
        await kept_until(shell, lambda: "renewed" in shell.lines)
        return shell.lines

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == ["ready", "renewed"]
