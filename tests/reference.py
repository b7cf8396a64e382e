"""array-lstm 0.0.1, found as the benchmarks find it; a test module that imports it skips where it is missing."""

import runpy
from pathlib import Path

import pytest

try:
    arrayLSTM = runpy.run_path(Path(__file__).parents[1] / "benchmarks" / "reference.py")["arrayLSTM"]  # noqa: N816
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)
