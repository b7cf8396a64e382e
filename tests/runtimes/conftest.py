"""Bundles to replay, and the runtimes' folders with their npm packages installed."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import arraylstm_export
from tests.export.conftest import make_model

RUNTIMES = Path(__file__).parent.parent.parent / "export" / "runtimes"
CELLS = ["array", "attention", "lstm", "markov", "toy"]
TRACED = {"markov"}
UNREACHABLE = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT")
INSTALL = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory):
    """Return, for a cell's name, the folder of a bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("replayed")

    def bundle(cell):
        if not (folder / cell).exists():
            arraylstm_export.export(make_model(cell), folder / cell, traces=cell in TRACED)
        return folder / cell

    return bundle


@pytest.fixture(params=CELLS)
def bundle(request, bundle_of):
    """Bundles of several cells, one of them with traces; not to be changed."""
    return bundle_of(request.param)


@pytest.fixture
def spoiled_bundle(bundle_of, tmp_path):
    """Return a copy of a bundle where one number of one vector's tensor is wrong."""

    def spoil(vector, tensor):
        folder = shutil.copytree(bundle_of("array"), tmp_path / "spoiled")
        arrays = dict(np.load(folder / "vectors" / vector))
        arrays[tensor].flat[-1] += 1e-3
        np.savez(folder / "vectors" / vector, **arrays)
        return folder

    return spoil


@pytest.fixture(scope="session")
def install(tmp_path_factory):
    """Return a runtime's folder, in a copy of export/runtimes, with its npm packages installed there."""
    copied = tmp_path_factory.mktemp("runtimes") / "runtimes"
    shutil.copytree(RUNTIMES, copied, ignore=shutil.ignore_patterns("node_modules"))

    def installed(runtime):
        if not (copied / runtime / "node_modules").exists():
            npm_install(copied / runtime)
        return copied / runtime

    yield installed
    for modules in copied.glob("*/node_modules"):
        shutil.rmtree(modules)  # hundreds of megabytes, which pytest would keep for three runs


def npm_install(folder):
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    done = subprocess.run(INSTALL, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if UNREACHABLE.search(done.stderr):
        pytest.skip("the npm registry cannot be reached")
    assert done.returncode == 0, done.stderr
