"""Interleaved timing of calls in this process.

Every callable runs in every round, one after the other, so that a busy machine slows all of them equally. By default
the CPU time of this process is measured: with one thread, that is the wall time without the time of other processes.
The scripts show ratios of the medians, which carry over to other machines better than times.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

import torch
from report import Row

Call = Callable[[], object]
Stopwatch = Callable[[Call, int], float]
"""Returns the seconds that a call takes, from so many of them."""

_SAMPLE_SECONDS = 0.01  # seconds of one sample; a shorter call is repeated
PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "array-lstm")
"""What is timed."""


@dataclass(frozen=True, kw_only=True)
class TimingOptions:
    """How to measure."""

    rounds: int = 5
    """Rounds; each runs everything once, and the median round is shown."""
    json: Path | None = None
    """File to write the results to as JSON."""

    def __post_init__(self) -> None:
        """Refuse a number of rounds below 1."""
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds!r}")


def timed(name: str, seconds: float, references: Mapping[str, float] | None = None) -> Row:
    """Return the row of a time, divided by each reference's time: below 1 is faster than the reference."""
    ratios = {f"/ {column}": seconds / reference for column, reference in (references or {}).items()}
    return Row(name, ratios, {"ms": seconds * 1e3})


def single_thread() -> None:
    """Keep torch on the calling thread, and make weights reproducible."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def cpu_seconds(call: Call, repeat: int) -> float:
    """Return the seconds of CPU time that a call takes, from this many calls."""
    start = process_time()
    for _ in range(repeat):
        call()
    return (process_time() - start) / repeat


def measure(calls: Mapping[str, Call], rounds: int, stopwatch: Stopwatch = cpu_seconds) -> dict[str, float]:
    """Return each callable's median seconds per call; each round runs every callable once, in turn."""
    repeats = {name: _warm_up(call, stopwatch) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(stopwatch(call, repeats[name]))
    return {name: median(values) for name, values in samples.items()}


def _warm_up(call: Call, stopwatch: Stopwatch) -> int:
    """Run the callable twice, and return how many runs of it fill a sample."""
    call()
    return max(1, math.ceil(_SAMPLE_SECONDS / stopwatch(call, 1)))
