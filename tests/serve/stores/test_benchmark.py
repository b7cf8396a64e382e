"""The script that measures the stores, at small sizes; what it counts shows when SQLite syncs."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "stores.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script writes."""
    path = tmp_path_factory.mktemp("stores") / "figures.json"
    sizes = "--hidden-size 4 --k 2 --num-items 10 --batch 1 --batch 3 --sessions 8 --rounds 2"
    command = [sys.executable, str(SCRIPT), *sizes.split(), "--json", str(path)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ, timeout=120)
    return json.loads(path.read_text())


def test_every_store_is_measured(figures: Any) -> None:
    """Each store has a row for each size of batch, with times above zero."""
    record, stores = figures["tables"]
    assert [row["name"] for row in record["rows"]] == ["encode", "decode"]
    names = [re.sub(r" 3[.\d]+", "", row["name"]) for row in stores["rows"]]
    kinds = ["memory", "SQLite synchronous=FULL", "SQLite synchronous=NORMAL"]
    assert names == [f"{kind}, batch {batch}" for kind in kinds for batch in (1, 3)]
    assert all(value > 0 for row in stores["rows"] for value in row["figures"].values())


def test_sessions_are_drawn_by_zipfs_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """The r-th session of the order comes r times as rarely as the first, and the order is no alphabet."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    population = importlib.import_module("population")
    order = population.zipf_order(1000)
    counts = np.bincount(population.zipf(1000, 200_000, 1.0), minlength=1000)[order]
    expected = 200_000 / np.arange(1, 1001) / (1 / np.arange(1, 1001)).sum()
    assert counts[:20] == pytest.approx(expected[:20], rel=0.1)
    assert sorted(order) == list(range(1000))
    assert list(order[:3]) != [0, 1, 2]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which counts the syncs, is not installed")
def test_full_syncs_each_transaction_and_normal_does_not(figures: Any) -> None:
    """`synchronous=FULL` syncs at least once for each of 100 transactions, `NORMAL` for a few only."""
    counts = [int(re.findall(r"records: .*?(\d+) fdatasync", note)[0]) for note in figures["tables"][1]["notes"][1:]]
    assert 100 <= counts[0] < 150
    assert counts[1] < 50
