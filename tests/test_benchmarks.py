"""The script that measures a GPU, at small sizes on the chosen device."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import reference as reference  # skips this module where array-lstm is missing
from .devices import Chosen

NOT_RUN = "not run: needs CUDA"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NEEDS_CUDA = {
    "product, TF32",
    "CUDA graph of one small kernel, to its end",
    "engine, arrays",
    "torch CUDA graph",
    "CUDA graph",
    "CUDA graph of compiled step",
}
SMALL = {
    "device": Chosen.device,
    "backend": "aot_eager",
    "copy-megabytes": 1,
    "product": 32,
    "batch": [1, 3],
    "hidden": 16,
    "lanes": 2,
    "num-items": 40,
    "embedding-size": 8,
    "train-batch": 2,
    "train-steps": 3,
    "train-input": 4,
    "train-hidden": 8,
    "train-lanes": 2,
    "cells": ["attention", "stochastic", "markov"],
    "bulk": 20,
    "bulk-batch": 8,
    "bulk-hidden": 16,
    "bulk-lanes": 2,
    "connections": 2,
    "seconds": 0.2,
    "server-cores": 0,
    "rounds": 1,
    "json": "figures.json",
}


def flags(options):
    """Write options as a command line has them, a list as a flag for each of its values."""
    pairs = [(name, one) for name, given in options.items() for one in (given if isinstance(given, list) else [given])]
    return [word for name, value in pairs for word in (f"--{name}", str(value))]


def run(*command, **variables):
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """What the script wrote of all its parts."""
    path = tmp_path_factory.mktemp("cuda") / SMALL["json"]
    run(BENCHMARKS / "cuda.py", *flags(SMALL | {"json": path}))
    return json.loads(path.read_text())


def test_every_part_is_measured_and_what_needs_cuda_says_so(figures):
    """Each part has its rows with figures above zero; on the CPU those that need CUDA have none, and a note each."""
    titles = [table["title"].split(":")[0].split(",")[0] for table in figures["tables"]]
    trained = [f"Training of {name}" for name in SMALL["cells"]]
    assert titles == ["What the card can do", "One step", *trained, "Bulk requests over HTTP"]
    rows = [row for table in figures["tables"] for row in table["rows"]]
    assert all(value > 0 for row in rows for value in (*row["ratios"].values(), *row["figures"].values()))
    left_out = set() if Chosen.device == "cuda" else NEEDS_CUDA
    assert {re.sub(r"^B=\d+ ", "", row["name"]) for row in rows if not row["figures"]} == left_out
    notes = [note for table in figures["tables"] for note in table["notes"]]
    assert {note.removesuffix(f": {NOT_RUN}") for note in notes if note.endswith(NOT_RUN)} == left_out


def test_it_says_what_it_measured_on(figures):
    """The machine, the settings and the versions of what was measured stand beside the figures."""
    settings = figures["settings"]
    assert (settings["device"], settings["rounds"]) == (Chosen.device, 1)
    expected = {"device"} if Chosen.device == "cpu" else {"device", "driver", "torch's CUDA", "torch's cuDNN"}
    assert set(settings["machine"]) == expected
    assert {"torch", "array-lstm"} <= set(figures["versions"])


def test_floors_are_counted_from_bytes_and_operations():
    """Of one step and of one training pass, as counted by hand."""
    script = "from gpu.ceilings import *; print(step_work(4096, 512, 4, 1000, 64), training_work(64, 100, 512, 512, 4))"
    step = 4 * (8192 * 512 + 512 * 1000 + 1000 * 64 + 2 * 5 * 512 * 4096 + 4096 * 1000)
    training = 4 * 2 * (8192 * 1024 + 64 * 100 * 1024)
    printed = run("-c", script, PYTHONPATH=os.pathsep.join([str(BENCHMARKS), *sys.path]))
    assert printed.split() == [
        f"Work(bytes={step},",
        f"operations={2 * 4096 * (8192 * 512 + 512 * 1000)})",
        f"Work(bytes={training},",
        f"operations={6 * 6400 * 8192 * 1024})",
    ]


def test_nvidias_package_is_found_past_the_script_of_its_name(tmp_path):
    """Where scripts of the folder run, torch's imports from `cuda` get what is installed under that name."""
    (tmp_path / "cuda" / "bindings").mkdir(parents=True)
    (tmp_path / "cuda" / "bindings" / "__init__.py").write_text("THERE = 'installed'")
    path = os.pathsep.join([str(BENCHMARKS), str(tmp_path)])
    assert run("-c", "from cuda.bindings import THERE; print(THERE)", PYTHONPATH=path) == "installed\n"
