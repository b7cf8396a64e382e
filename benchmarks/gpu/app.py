"""Measure a GPU: what the card can do, and the engine, training and bulk requests compared with it and with torch.

    python benchmarks/cuda.py --json cuda.json             # some minutes of one GPU
    python benchmarks/cuda.py --parts training
    python benchmarks/cuda.py --device cpu --hidden 32     # without a GPU; tests/test_benchmarks.py has all small sizes

A floor is the least time for a task: it counts the bytes that the task must move and its operations, at the measured
speeds of copying and multiplying. Reads from the card's cache are faster than copies, so small steps may be faster.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from cyclopts import App, Parameter
from gpu.ceilings import measure_ceilings
from gpu.device import Device, multiply
from gpu.sizes import BulkSizes, CardSizes, StepSizes, TrainingSizes
from report import Table, output, show, write_json
from timing import TimingOptions, single_thread

Part = Literal["engine", "training", "http"]
PACKAGES = ("torch", "triton", "array-lstm", "onnxruntime", "onnxruntime-gpu", "onnx")

app = App(name="cuda", help=__doc__, result_action="return_value")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, and where."""

    parts: tuple[Part, ...] = ("engine", "training", "http")
    """Parts to run; what the card can do is always measured."""
    card: Annotated[CardSizes, Parameter(name="*")] = field(default_factory=CardSizes)
    steps: Annotated[StepSizes, Parameter(name="*")] = field(default_factory=StepSizes)
    training: Annotated[TrainingSizes, Parameter(name="*")] = field(default_factory=TrainingSizes)
    bulk: Annotated[BulkSizes, Parameter(name="*")] = field(default_factory=BulkSizes)


@app.default
def main(
    *,
    device: Annotated[Device, Parameter(name="*")] = Device(),
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(),
) -> int:
    """Measure what the card can do, then each part; the file of results is written again after each table."""
    device.require()
    multiply(tf32=device.tf32)
    if not device.is_cuda:
        single_thread()
    out = output()
    settings = {"machine": device.described()} | asdict(device) | asdict(sizes) | {"rounds": timing.rounds}
    done: list[Table] = []
    for table in _tables(device, sizes, timing.rounds):
        show(table, out)
        done.append(table)
        if timing.json is not None:
            write_json(timing.json, settings, PACKAGES, done)
    return 0


def _tables(device: Device, sizes: Sizes, rounds: int) -> Iterator[Table]:
    ceilings, table = measure_ceilings(device, sizes.card, rounds)
    yield table
    if "engine" in sizes.parts:
        from gpu import engine  # imported here because each part needs packages that the others do not

        yield from engine.tables(device, ceilings, sizes.steps, rounds)
    if "training" in sizes.parts:
        from gpu import training

        yield from training.tables(device, ceilings, sizes.training, rounds)
    if "http" in sizes.parts:
        from gpu import http

        yield from http.tables(device, ceilings, sizes.steps, sizes.bulk, rounds)
