"""The scripts that made the pictures in the documentation, at small sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arraylstm import CELLS
from arraylstm.eventlog import generate_sessions

from .toy import Toy

ROOT = Path(__file__).parents[1]
SMALL = ["--parameters", "600", "--embedding-size", "3", "--epochs", "1", "--batch-size", "32"]


@pytest.fixture
def run_script(tmp_path):
    """Run a script of the checkout as a user does, in an empty folder; returns what it printed."""

    def run(path, *arguments):
        command = [sys.executable, ROOT / path, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_comparison_trains_every_cell_once(run_script, tmp_path):
    """It leaves numbers of every cell and a picture; started again it trains nothing and draws the picture anew."""
    (tmp_path / "events.txt").write_text("\n".join(" ".join(session) for session in generate_sessions(40)))
    arguments = ("benchmarks/comparison.py", "events.txt", "-o", "results", *SMALL)
    run_script(*arguments)
    written = (tmp_path / "results.json").read_text()
    runs = json.loads(written)["runs"]
    assert {run["cell"] for run in runs} == {name for name, cell in CELLS.items() if cell is not Toy}
    assert all(len(run["validation"]) == 1 and 0 < run["held_out"]["loss"] < 4 for run in runs)
    assert is_picture(tmp_path / "results.png")
    (tmp_path / "results.png").unlink()
    run_script(*arguments)
    assert (tmp_path / "results.json").read_text() == written
    assert is_picture(tmp_path / "results.png")


def test_the_waveforms_are_learned_and_drawn(run_script, tmp_path):
    """It prints the accuracy on held-out waveforms and the lanes' probabilities, and leaves its picture."""
    printed = run_script("examples/waveforms.py", "picture.png", "--waveforms", 64, "--epochs", 1)
    assert "of 400 held-out waveforms are classified correctly" in printed
    assert printed.count("lane 2") == 4
    assert is_picture(tmp_path / "picture.png")
