"""The choice of a device."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_cuda_that_torch_does_not_have_is_refused_before_any_test_runs():
    """Chosen where there is none, it ends the run as a wrong use of pytest (4) with one sentence, and skips nothing."""
    command = [sys.executable, "-m", "pytest", "--device", "cuda", "tests/test_devices.py"]
    none = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=none, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "--device cuda: torch" in done.stderr
    assert "finds no CUDA device here" in done.stderr
