"""Bundles for the replay programs of C++ and onnx.reference, and what such a program has to answer."""

import shutil
import subprocess

import numpy as np

import arraylstm_export
from tests.export.conftest import make_model

TRACED = "markov"
CELLS = ["array", "attention", "lstm", TRACED, "toy"]
SPOILS = [("step", "logits"), ("step", "next_state_c_l1"), ("sequence", "logits"), ("sequence", "next_state_h_l0")]


def exported(tmp_path_factory, cell):
    """Return a bundle of a cell's small model, exported once in a session whichever tests ask for it."""
    folder = tmp_path_factory.getbasetemp() / "replayed" / cell
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        assert arraylstm_export.export(make_model(cell), folder, traces=cell == TRACED).passed
    return folder


def run(*command):
    """Run a replay program."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)


def spoiled(bundle, folder, graph, name):
    """Return a copy of a bundle in which one number that a graph should give is off by a thousandth."""
    shutil.copytree(bundle, folder)
    path = max(folder.glob(f"vectors/{graph}/*.npz"))
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[name].flat[-1] += 1e-3 * max(1, abs(arrays[name].flat[-1]))
    np.savez(path, **arrays)
    return folder


def assert_within(finished, forms):
    """Assert that a program replayed these forms of the model and found no more than rounding; return its lines."""
    assert (finished.returncode, finished.stderr) == (0, "")
    *lines, last = finished.stdout.splitlines()
    label, _, largest = last.rpartition(" ")
    assert label == "largest difference"
    found = dict(line.split(": 2 vectors, largest difference ") for line in lines if "vectors, " in line)
    assert list(found) == forms
    assert float(largest) == max(float(text.split()[0]) for text in found.values()) < 1e-5
    return lines


def assert_beyond(finished, name, count):
    """Assert that a program found the spoiled number, where it is, in this many forms of the model."""
    assert (finished.returncode, finished.stderr) == (1, "")
    *lines, last = finished.stdout.splitlines()
    assert last == "largest difference 1.0e-03"
    assert sum(f"largest difference 1.0e-03 in {name} of test_data_set_1.npz" in line for line in lines) == count


def assert_bad_input(finished, *words):
    """Assert that a program says in one sentence, which holds the words, what is wrong with what it was given."""
    assert (finished.returncode, finished.stdout) == (2, "")
    (sentence,) = finished.stderr.splitlines()
    assert all(word in sentence for word in words)
