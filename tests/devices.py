"""Where the served model runs in this run of the suite: `pytest --device cuda` for the GPU."""

import pytest

CHOICES = ("cpu", "cuda")

same_bits = pytest.mark.same_bits
"""Marks what holds on the CPU alone: CUDA's results may depend, below 1e-5, on the rows beside."""


class Chosen:
    """The device, set before any test runs."""

    device = "cpu"
