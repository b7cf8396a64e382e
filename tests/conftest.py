"""Fixtures that every part of the suite uses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # spinning thread pools of torch starve what runs beside them

from arraylstm import CELLS  # after the number of threads is set

from . import slow, surroundings
from .devices import DEVICES, ENGINES, choose, unpromised
from .toy import Toy

surroundings.settle()
CELLS["toy"] = Toy  # all that it takes to have it in every test that runs over the registry

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
BROWSER = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser):
    """Let the tests run on another device, and the serving ones with another engine."""
    parser.addoption("--device", choices=DEVICES, default="cpu", help="where models run, in torch and served")
    parser.addoption("--engine", choices=ENGINES, help="where session state lies; with cuda only `device`")
    parser.addoption("--find-slow", action="store_true", help="write the names of the slow tests to tests/slow.txt")


def pytest_configure(config):
    """Choose the device and the engine."""
    choose(config.getoption("--device"), config.getoption("--engine"))
    if config.getoption("--find-slow") and not hasattr(config, "workerinput"):  # xdist's workers report to this process
        config.pluginmanager.register(slow.Stopwatch())


def pytest_collection_modifyitems(items):
    """Mark what is slow, and skip what the chosen device and engine do not promise."""
    slow.mark(items)
    for item in items:
        for mark in item.iter_markers():
            if mark.name in unpromised():
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.fixture(scope="session")
def shared():
    """The folder of reference vectors and real data beside a checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the reference vectors and real data (../shared) are not beside this checkout")
    return SHARED


@pytest.fixture
def run_program(tmp_path):
    """Run an installed console script as a user does, in an empty folder; returns the finished process."""

    def run(name, *arguments, timeout=300, encoding=None):
        command = [Path(sys.executable).parent / name, *map(str, arguments)]
        reading = {"text": True, "encoding": encoding, "timeout": timeout}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, **reading)

    return run


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; closed at the module's end, as playwright's event loop would hinder asyncio's elsewhere."""
    from playwright.sync_api import sync_playwright  # here, as most of the suite does without

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER)
        yield browser
        browser.close()
