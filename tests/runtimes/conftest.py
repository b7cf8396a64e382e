"""Bundles to replay, and the programs that replay them: installed with npm, or compiled."""

import importlib.util
import re
import shutil
import sys

import numpy as np
import pytest
import torch

import arraylstm_export
from arraylstm import NextItemModel
from arraylstm_export import Options
from tests.export.helpers import QUICK, SMALL, make_model

from .programs import FORMS, SOURCES, Program, run

CELLS = {
    "array": QUICK,
    "attention": QUICK,
    "lstm": QUICK,
    "markov": Options(diagnostics=True, coverage=SMALL),
    "toy": QUICK,
    "started": QUICK,
}
"""Cells, and one that starts from numbers of its own."""
UNREACHABLE = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT")
INSTALL = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
HEADERS = {"nlohmann/json.hpp": "nlohmann-json3-dev", "zip.h": "libzip-dev"}
WITHOUT = """\
import runpy, sys
sys.modules.update(dict.fromkeys(["torch", "onnxruntime", "arraylstm", "arraylstm_export"]))  # not to be imported
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# -- bundles ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory):
    """Return, for a cell's name, the folder of a bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("replayed")

    def bundle(cell):
        if not (folder / cell).exists():
            arraylstm_export.export(started() if cell == "started" else make_model(cell), folder / cell, CELLS[cell])
        return folder / cell

    return bundle


@pytest.fixture(params=CELLS)
def cell(request):
    """Cells that differ in what their graphs are made of; one of them has diagnostics."""
    return request.param


@pytest.fixture
def bundle(bundle_of, cell):
    """A bundle of each of those cells; not to be changed."""
    return bundle_of(cell)


@pytest.fixture
def copied_bundle(bundle_of, tmp_path):
    """A bundle of the array cell that may be changed."""
    return shutil.copytree(bundle_of("array"), tmp_path / "bundle")


@pytest.fixture
def spoiled_bundle(copied_bundle):
    """Return a bundle in which one number that a graph should give is off by a thousandth."""

    def spoil(graph, tensor):
        path = copied_bundle / "vectors" / graph / "test_data_set_1.npz"
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays[tensor].flat[-1] += 1e-3 * max(1, abs(arrays[tensor].flat[-1]))
        np.savez(path, **arrays)
        return copied_bundle

    return spoil


def started():
    """Return a model whose sessions start from random numbers."""
    torch.manual_seed(4)
    model = NextItemModel("array", 7, 6, k=3, num_layers=2, embedding_size=5, learned_start=True).eval()
    with torch.no_grad():
        for cell in model.cells.values():
            for start in cell.learned_start:
                start.normal_()
    return model


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=FORMS)
def replay(request):
    """The replay program of every runtime that has one for the terminal."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def reference():
    """onnx.reference, in an interpreter that cannot import what the program does without."""
    script = SOURCES / "reference" / "replay.py"
    return Program("reference", (sys.executable, "-W", "error", "-c", WITHOUT, script))


@pytest.fixture(scope="session")
def node(install):
    """onnxruntime in Node."""
    return Program("node", ("node", "replay.mjs"), install("node"))


@pytest.fixture(scope="session")
def libtorch(compiled):
    """TorchScript in C++."""
    if torch.version.cuda is not None:
        pytest.skip("a CUDA build of torch wants the CUDA toolkit where C++ is compiled")
    return compiled("libtorch", torch.utils.cmake_prefix_path)


@pytest.fixture(scope="session")
def openvino(compiled):
    """OpenVINO in C++."""
    package = importlib.util.find_spec("openvino")
    if package is None:
        pytest.skip("openvino is not installed")
    return compiled("openvino", f"{package.submodule_search_locations[0]}/cmake")


@pytest.fixture(scope="session")
def install(tmp_path_factory):
    """Return a runtime's folder, in a copy of export/runtimes, with its npm packages installed there."""
    copied = tmp_path_factory.mktemp("runtimes") / "runtimes"
    shutil.copytree(SOURCES, copied, ignore=shutil.ignore_patterns("node_modules"))

    def installed(runtime):
        if not (copied / runtime / "node_modules").exists():
            npm_install(copied / runtime)
        return copied / runtime

    yield installed
    for modules in copied.glob("*/node_modules"):
        shutil.rmtree(modules)  # hundreds of megabytes, which pytest would keep for three runs


def npm_install(folder):
    skip_without("node", "npm")
    done = run(*INSTALL, folder=folder)
    if UNREACHABLE.search(done.stderr):
        pytest.skip("the npm registry cannot be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Return a runtime's program in C++, compiled without a warning against the library whose CMake files are given."""
    skip_without("cmake", "g++", "make")
    probe = tmp_path_factory.mktemp("headers") / "probe.cpp"
    for header, package in HEADERS.items():
        probe.write_text(f"#include <{header}>", encoding="utf-8")
        if run("g++", "-E", probe).returncode != 0:
            pytest.skip(f"the header {header} is not installed (Debian: {package})")

    def compile(runtime, library):
        build = tmp_path_factory.mktemp(runtime)
        strict = "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"
        source = SOURCES / "cpp" / runtime
        configured = run("cmake", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={library}", strict)
        assert configured.returncode == 0, configured.stderr
        built = run("cmake", "--build", build, "--parallel")
        assert built.returncode == 0, built.stdout + built.stderr
        return Program(runtime, (build / f"replay_{runtime}",))

    return compile


def skip_without(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
