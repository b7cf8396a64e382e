"""Where the served model runs in this run of the suite: `pytest --device cuda` for the GPU.

`pytest --engine device` has the engine of the GPU run on the CPU.
"""

import pytest

DEVICES = ("cpu", "cuda")
ENGINES = ("host", "device")

same_bits = pytest.mark.same_bits
"""Marks what holds of the host's engine alone: a device's results may depend, below 1e-5, on the rows beside."""


class Chosen:
    """The device and the engine, set before any test runs."""

    device = "cpu"
    engine = "host"
