import functools
import json
import shutil
import sys
from pathlib import Path

import pytest

from .replays import CELLS, SPOILS, assert_bad_input, assert_beyond, assert_within, exported, run, spoiled

PROGRAM = Path(__file__).parents[2] / "export" / "runtimes" / "reference" / "replay.py"
FORMS = ["step.onnx", "sequence.onnx", "step.onnx, item by item"]
WITHOUT = """\
import runpy, sys
sys.modules.update(dict.fromkeys(["torch", "onnxruntime", "arraylstm", "arraylstm_export"]))  # not to be imported
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def replay():
    """Run the program in an interpreter that cannot import what the program does without."""
    return functools.partial(run, sys.executable, "-W", "error", "-c", WITHOUT, PROGRAM)


@pytest.fixture
def array_bundle(tmp_path_factory):
    return exported(tmp_path_factory, "array")


@pytest.mark.parametrize("cell", CELLS)
def test_vectors(cell, replay, tmp_path_factory):
    """The specification of ONNX gives what the vectors say, at once and item by item, traces included."""
    lines = assert_within(replay(exported(tmp_path_factory, cell)), FORMS)
    assert any("only full rows were compared" in line for line in lines) == (cell == "lstm")


@pytest.mark.parametrize(("graph", "name"), SPOILS)
def test_spoiled_vector(graph, name, replay, array_bundle, tmp_path):
    """One wrong number anywhere is found, and a sequence's both at once and item by item."""
    assert_beyond(replay(spoiled(array_bundle, tmp_path / "spoiled", graph, name)), name, 1 if graph == "step" else 2)


def test_no_bundle(replay, tmp_path):
    """A folder without a bundle is named in a sentence."""
    assert_bad_input(replay(tmp_path), str(tmp_path), "no manifest.json")


@pytest.mark.parametrize("file", ["manifest.json", "step.onnx", "sequence.onnx", "vectors/step/test_data_set_0.npz"])
@pytest.mark.parametrize("content", [b"", b"junk"])
def test_unreadable_bundle(file, content, replay, array_bundle, tmp_path):
    """A file that is not what it should be is a sentence about the bundle, not a traceback."""
    bundle = shutil.copytree(array_bundle, tmp_path / "bundle")
    (bundle / file).write_bytes(content)
    assert_bad_input(replay(bundle), str(bundle), "cannot be read")


def test_no_vectors(replay, array_bundle, tmp_path):
    """A bundle without vectors is not taken for one that passed."""
    bundle = shutil.copytree(array_bundle, tmp_path / "bundle")
    shutil.rmtree(bundle / "vectors" / "sequence")
    assert_bad_input(replay(bundle), str(bundle), "no vectors/sequence")


def test_tolerance(replay, array_bundle, tmp_path):
    """A bundle that was allowed more is held to what it was allowed."""
    bundle = spoiled(array_bundle, tmp_path / "bundle", "step", "logits")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["tolerance"]["allowed"] = 2e-3
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert replay(bundle).returncode == 0
