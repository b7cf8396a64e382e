"""Locks on folders, with the system's own and, as on Windows, without."""

import subprocess
import sys

import pytest

from arraylstm_export import export
from arraylstm_export.bundle import locks

from ..helpers import SCRIPT, make_model

HOLD = """
import sys
from pathlib import Path
from arraylstm_export.bundle import locks
if sys.argv[2] == "elsewhere":
    locks.fcntl = None
with locks.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["itself", "elsewhere"])
def where(request, monkeypatch):
    """What is locked: the folder, or a file that stands for it."""
    if request.param == "elsewhere":
        monkeypatch.setattr(locks, "fcntl", None)
    return request.param


def test_a_lock_is_another_processs_until_that_ends(where, tmp_path):
    """Without waiting it is refused as an OSError; a killed process holds nothing."""
    command = [sys.executable, "-c", HOLD, tmp_path, where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OSError), locks.locked(tmp_path, wait=False):  # noqa: PT011 - as flock and we word it
            pass
        with locks.locked(tmp_path.parent, wait=False):  # another folder
            pass
        other.kill()
    with locks.locked(tmp_path, wait=False):
        assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_written_and_replaced(where, tmp_path):
    """Nothing but the bundle is left in the folder."""
    for _ in range(2):
        assert export(make_model("lstm"), tmp_path / "bundle", SCRIPT).passed
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
