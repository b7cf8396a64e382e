import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from .replays import CELLS, SPOILS, assert_bad_input, assert_beyond, assert_within, exported, run, spoiled

SOURCES = Path(__file__).parents[2] / "export" / "runtimes" / "cpp"
FORMS = {
    "libtorch": ["TorchScript step", "TorchScript forward", "TorchScript step, item by item"],
    "openvino": ["step.onnx", "sequence.onnx", "step.onnx, item by item"],
}
REFUSED = {
    (
        "openvino",
        "lstm",
    ): "not supported: OpenVINO's CPU device ignores the lengths of an LSTM operator whose shapes are "
    "dynamic; take step.onnx, or fix B and S by ov::Model::reshape",
    # An Unsqueeze with an empty list of axes adds an axis there.
    ("openvino", "toy"): "not supported: OpenVINO cannot run it: ParameterMismatch: Can not clone with new dims. "
    "Descriptor's shape: {0 - ?} is incompatible with provided dimensions: {1, 2}.",
}


def cmake_files(runtime):
    """Return the folder of the runtime's CMake files in the wheel that is installed."""
    if runtime == "libtorch":
        if torch.version.cuda is not None:
            pytest.skip("a CUDA build of torch wants the CUDA toolkit where C++ is compiled")
        return torch.utils.cmake_prefix_path
    package = importlib.util.find_spec("openvino")
    if package is None:
        pytest.skip("openvino is not installed")
    return f"{package.submodule_search_locations[0]}/cmake"


@pytest.fixture(scope="session")
def compiler(tmp_path_factory):
    """Skip where C++ cannot be compiled, or a library that the programs need lacks its headers."""
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    source = tmp_path_factory.mktemp("headers") / "probe.cpp"
    for header, package in (("nlohmann/json.hpp", "nlohmann-json3-dev"), ("zip.h", "libzip-dev")):
        source.write_text(f"#include <{header}>", encoding="utf-8")
        if run("g++", "-E", source).returncode != 0:
            pytest.skip(f"the header {header} is not installed (Debian: {package})")


@pytest.fixture(scope="session", params=FORMS)
def runtime(request):
    """The runtime whose program is tested."""
    return request.param


@pytest.fixture(scope="session")
def program(runtime, compiler, tmp_path_factory):
    """The runtime's replay program, compiled once, and without a warning."""
    folder = tmp_path_factory.mktemp(runtime)
    strict = "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"
    configured = run(
        "cmake", "-S", SOURCES / runtime, "-B", folder, f"-DCMAKE_PREFIX_PATH={cmake_files(runtime)}", strict
    )
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / f"replay_{runtime}"


@pytest.fixture
def array_bundle(tmp_path_factory):
    return exported(tmp_path_factory, "array")


@pytest.mark.parametrize("cell", CELLS)
def test_vectors(cell, runtime, program, tmp_path_factory):
    """The program gives what the vectors say, at once and item by item, traces included, or says what it cannot run."""
    finished = run(program, exported(tmp_path_factory, cell))
    reason = REFUSED.get((runtime, cell))
    step, sequence, sessions = FORMS[runtime]
    lines = assert_within(finished, [step, sequence, sessions] if reason is None else [step, sessions])
    assert [line for line in lines if "vectors, " not in line] == ([] if reason is None else [f"{sequence}: {reason}"])


@pytest.mark.parametrize(("graph", "name"), SPOILS)
def test_spoiled_vector(graph, name, program, array_bundle, tmp_path):
    """One wrong number anywhere is found, and a sequence's both at once and item by item."""
    assert_beyond(
        run(program, spoiled(array_bundle, tmp_path / "spoiled", graph, name)), name, 1 if graph == "step" else 2
    )


def test_no_bundle(program, tmp_path):
    """A folder without a bundle is named in a sentence."""
    assert_bad_input(run(program, tmp_path), str(tmp_path), "is no bundle")


def test_no_argument(program):
    """Without a bundle the program says how it is used."""
    assert_bad_input(run(program), "usage:", "BUNDLE")


@pytest.mark.parametrize("halves", [0, 1])
@pytest.mark.parametrize("kind", ["manifest", "model", "vector"])
def test_unreadable_bundle(kind, halves, runtime, program, array_bundle, tmp_path):
    """A file that is empty or cut off half-way is named in a sentence."""
    model = {"libtorch": "model.torchscript.pt", "openvino": "step.onnx"}[runtime]
    bundle = shutil.copytree(array_bundle, tmp_path / "bundle")
    path = bundle / {"manifest": "manifest.json", "model": model, "vector": "vectors/step/test_data_set_0.npz"}[kind]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 * halves])
    assert_bad_input(run(program, bundle), str(path))


def test_state_of_another_kind(program, array_bundle, tmp_path):
    """A state that the program would not start or keep rightly is refused."""
    bundle = shutil.copytree(array_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["states"][1]["dtype"] = "float16"
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert_bad_input(run(program, bundle), "c_l0", "float16", "float32")


def test_no_vectors(program, array_bundle, tmp_path):
    """A bundle without vectors is not taken for one that passed."""
    bundle = shutil.copytree(array_bundle, tmp_path / "bundle")
    shutil.rmtree(bundle / "vectors" / "sequence")
    assert_bad_input(run(program, bundle), "sequence", "no vectors")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("lengths", np.array([4, 0, 8]), "lengths must lie between 0 and 7"),
        ("lengths", np.array([4]), "lengths is (1), but has to be (3)"),
        ("state_h_l0", np.ones((1, 6), np.float32), "state_h_l0 is (1, 6), but has to be (3, 6)"),
        ("items", np.array([1, 2, 3]), "items has 1 axes, but has to have 2"),
        ("logits", np.ones((3, 7, 1), np.float64), "'descr': '<f8'"),
    ],
)
def test_vector_that_does_not_fit(name, array, words, program, array_bundle, tmp_path):
    """A vector whose arrays contradict each other is refused rather than read past its end."""
    bundle = shutil.copytree(array_bundle, tmp_path / "bundle")
    path = bundle / "vectors" / "sequence" / "test_data_set_1.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {name: array})
    assert_bad_input(run(program, bundle), str(path), words)
