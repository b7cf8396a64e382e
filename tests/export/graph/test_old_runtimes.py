"""Old versions of onnxruntime, really installed, read what docs/runtimes.md says they read."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from arraylstm_export.formats.eager import Sequences
from arraylstm_export.graph.opset import converted
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.interface import Interface

from ..helpers import make_step

# Loads every graph of a folder with its feed and expected logits, and prints the largest difference or the refusal.
REPLAY = """
import json, pathlib, sys
import numpy, onnxruntime

from ..helpers import make_step
found = {"version": onnxruntime.__version__}
for path in pathlib.Path(sys.argv[1]).glob("*.onnx"):
    feed = dict(numpy.load(path.with_suffix(".npz")))
    expected = feed.pop("logits")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found[path.stem] = float(numpy.abs(session.run(["logits"], feed)[0] - expected).max())
    except Exception as error:
        found[path.stem] = str(error)
print(json.dumps(found))
"""


@pytest.fixture
def replay(tmp_path):
    """Run the graphs of a folder in another onnxruntime, fetched from PyPI with an older numpy."""

    def replay(folder, *requirements):
        packages = tmp_path / "packages"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=0", "--timeout=20", "--no-deps"]
        command = [*pip, "--only-binary=:all:", f"--target={packages}", *requirements]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if fetched.returncode:
            pytest.skip(f"{requirements} cannot be had here: {fetched.stderr.strip().splitlines()[-1]}")
        environment = {"PYTHONPATH": str(packages), "ORT_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", REPLAY, folder]
        return json.loads(subprocess.run(command, capture_output=True, env=environment, check=True, timeout=300).stdout)

    return replay


def write(folder, model, versions):
    """Write step and sequence in each (opset, IR version), each with a feed and the logits it must give."""
    interface = Interface.of(model)
    rng = np.random.default_rng(0)
    items, lengths = rng.integers(0, model.num_items, (3, 5)), np.array([5, 5, 5])
    state = [rng.random((3, *state.shape), np.float32) for state in interface.states]
    logits = Sequences(model, interface)(items, lengths, state)[0][0]
    states = dict(zip((s.input.name for s in interface.states), state, strict=True))
    step = make_step(model)
    for opset, ir_version in versions:
        for name, graph, given, expected in (
            ("step", step, {"items": items[:, 0]}, logits[:, 0]),
            ("sequence", sequence_graph(step, interface), {"items": items, "lengths": lengths}, logits),
        ):
            path = folder / f"{name} {opset} {ir_version}.onnx"
            onnx.save(converted(graph, opset, ir_version), path)
            np.savez(path.with_suffix(".npz"), **given, **states, logits=expected)


def test_the_oldest_onnxruntime_there_is_reads_opset_15_to_18(array_bundle, replay, tmp_path):
    """onnxruntime 1.15.1 gives the model's scores up to IR version 9, and refuses what the table says."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    write(folder, array_bundle[0], [(15, 8), (17, 8), (18, 8), (18, 9), (18, 10), (20, 9)])
    found = replay(folder, "onnxruntime==1.15.1", "numpy==1.26.4")
    assert found.pop("version") == "1.15.1"
    for name in ("step", "sequence"):
        for versions in ("15 8", "17 8", "18 8", "18 9"):
            assert found[f"{name} {versions}"] < 1e-5
        assert "max supported IR version: 9" in found[f"{name} 18 10"]
        assert "till opset 19" in found[f"{name} 20 9"]
