"""Time steps of the server's engine, and compare them with the card, torch and onnxruntime."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path

import numpy as np
import torch
from bundles import Served, exported, untrained
from gpu.ceilings import Ceilings, step_work
from gpu.device import NOT_RUN, Device
from gpu.sizes import StepSizes
from gpu.steps import NEEDS_CUDA, PEERS, Step, Subject, engine_step
from report import Row, Table
from timing import measure

ENGINE = "engine"
_TOLERANCE, _TF32_TOLERANCE = 1e-5, 1e-3  # of probabilities


def tables(device: Device, ceilings: Ceilings, sizes: StepSizes, rounds: int) -> Iterator[Table]:
    """Measure every model: a table for each number of units and lanes."""
    for hidden in sizes.hidden:
        for lanes in sizes.lanes:
            with subject(device, sizes, hidden, lanes, max(sizes.batch)) as stepped:
                yield _table(stepped, ceilings, sizes, rounds)
            torch.compiler.reset()  # else the next model's compilations count towards this one's limit


@contextmanager
def subject(device: Device, sizes: StepSizes, hidden: int, lanes: int, most: int) -> Iterator[Subject]:
    """Yield an untrained model of this many units and lanes, exported to the folder of bundles unless it is there."""
    shape = {"num_items": sizes.num_items, "hidden_size": hidden, "k": lanes, "embedding_size": sizes.embedding_size}
    name = "-".join(f"{key}{value}" for key, value in shape.items())
    with tempfile.TemporaryDirectory() as folder:
        target = (sizes.bundles or Path(folder)).resolve() / name
        model = untrained(**shape)
        if not target.exists():
            exported(model, target)
        yield Subject(model.to(device.device), Served(target, sizes.num_items), device, most)


def _table(stepped: Subject, ceilings: Ceilings, sizes: StepSizes, rounds: int) -> Table:
    hidden, lanes = stepped.model.config["hidden_size"], stepped.model.config["k"]
    left_out = sorted(NEEDS_CUDA & set(sizes.peers)) if not stepped.device.is_cuda else []
    notes = [stepped.engine.device, *(f"{peer}: {NOT_RUN}" for peer in left_out)]
    rows = []
    for batch in sizes.batch:
        work = step_work(batch, hidden, lanes, sizes.num_items, sizes.embedding_size)
        rows += compare(stepped, batch, ceilings, ceilings.floor(work), sizes, rounds, notes)
    return Table(f"One step, H={hidden} k={lanes} V={sizes.num_items}", rows, notes)


def compare(
    stepped: Subject, batch: int, ceilings: Ceilings, floor: float, sizes: StepSizes, rounds: int, notes: list[str]
) -> list[Row]:
    """Time a step of one batch in every way that gives the engine's probabilities; the others are noted."""
    items = np.random.default_rng(0).integers(0, sizes.num_items, batch)
    steps: dict[str, Step] = {ENGINE: engine_step(stepped, items)}
    for peer in sizes.peers:
        if stepped.device.is_cuda or peer not in NEEDS_CUDA:
            steps[peer] = PEERS[peer](stepped, items)
    steps = _agreeing(steps, batch, _TF32_TOLERANCE if stepped.device.tf32 else _TOLERANCE, notes)
    gc.collect()
    gc.freeze()  # as the server does: else the garbage collector goes through all of torch again and again
    seconds = measure(steps, rounds, stepped.device.stopwatch)
    rows = []
    for name, took in seconds.items():
        ratios = {"/ floor": took / floor, "/ launch": took / ceilings.launch, f"/ {ENGINE}": took / seconds[ENGINE]}
        known = {column: ratio for column, ratio in ratios.items() if not isnan(ratio)}
        figures = {"µs": took * 1e6, "floor µs": floor * 1e6, "rows/s": batch / took}
        rows.append(Row(f"B={batch} {name}", known, figures))
    return [*rows, *(Row(f"B={batch} {peer}") for peer in sizes.peers if peer not in steps)]


def _agreeing(steps: dict[str, Step], batch: int, tolerance: float, notes: list[str]) -> dict[str, Step]:
    """Take three steps in every way; return those that give the engine's probabilities, and note the others."""
    largest = dict.fromkeys(steps, 0.0)
    for _ in range(3):
        found = {name: step() for name, step in steps.items()}
        for name, probabilities in found.items():
            largest[name] = max(largest[name], float(np.abs(probabilities - found[ENGINE]).max()))
    wrong = {name: gap for name, gap in largest.items() if not gap <= tolerance}
    notes += [f"{name}: left out at B={batch}, {gap:.1e} from the {ENGINE}" for name, gap in wrong.items()]
    return {name: step for name, step in steps.items() if name not in wrong}
