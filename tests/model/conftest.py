"""The device that the tests of the modules run on, a way to run a program in this process, and saved state dicts."""

import signal
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from ..devices import Chosen


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What a test constructs and draws lies on the chosen device; what it reads from files it moves there itself."""
    with torch.device(Chosen.device):
        yield


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfd):
    """Run a program's `main` in an empty folder, as `run_program` does, but here: a process takes seconds to begin."""
    terminate = signal.getsignal(signal.SIGTERM)

    def run(main, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")  # they are in argv
            with pytest.raises(SystemExit) as exit:
                main()
        stdout, stderr = capfd.readouterr()
        return SimpleNamespace(returncode=exit.value.code, stdout=stdout, stderr=stderr)

    yield run
    signal.signal(signal.SIGTERM, terminate)


@pytest.fixture
def saved(tmp_path):
    """Write a state dict and return its path."""

    def write(weights):
        torch.save(weights, tmp_path / "network.pt")
        return tmp_path / "network.pt"

    return write
