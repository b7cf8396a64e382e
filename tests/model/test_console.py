"""What the programs that share `arraylstm.console` do on a console whose encoding lacks characters."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from cyclopts import App
from rich.console import Console
from arraylstm import console

app = App(name="program", result_action="return_value")

@app.default
def show() -> int:
    table = console.make_table("größe", "时间")
    table.add_row("1 µs", "Ж\\udcff")
    Console().print(table)
    print("…", "\\udcff")
    return 0

console.run(app)
"""


@pytest.mark.parametrize("encoding", ["ascii:strict", "gbk:strict", "cp932", "latin-1", "utf-8"])
def test_no_program_fails_for_want_of_a_character(encoding):
    """Tables and lines are printed with something in its place, names that are no text included; the status is 0."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"s" in done.stdout
