"""Measure what the card can do, and count the least work of a step and of a training pass."""

from dataclasses import dataclass
from math import nan

import torch
from gpu.device import NOT_RUN, Device, multiply
from gpu.sizes import CardSizes
from report import Row, Table
from timing import Call, measure

FLOAT = 4  # bytes
COPY, FLOAT32, TF32, LAUNCH = "copy", "product, float32", "product, TF32", "CUDA graph of one small kernel, to its end"


@dataclass(frozen=True)
class Work:
    """The least bytes to move and operations to compute."""

    bytes: float
    operations: float


@dataclass(frozen=True)
class Ceilings:
    """The speeds that the card reached."""

    bandwidth: float
    """Bytes a second, read and written."""
    rate: float
    """Operations a second of a matrix product, at the same precision as all else that is measured."""
    launch: float
    """Seconds from the launch of a captured graph to its end, as the host sees it; NaN without CUDA."""

    def floor(self, work: Work) -> float:
        """Return the seconds that the work takes at least."""
        return max(work.bytes / self.bandwidth, work.operations / self.rate)


def measure_ceilings(device: Device, sizes: CardSizes, rounds: int) -> tuple[Ceilings, Table]:
    """Time copies, products and launches."""
    source = torch.zeros(sizes.copy_megabytes * 2**20 // FLOAT, device=device.device)
    target = torch.empty_like(source)
    factor = torch.randn(sizes.product, sizes.product, device=device.device)
    result = torch.empty_like(factor)

    def product(tf32: bool) -> None:
        multiply(tf32=tf32)
        torch.mm(factor, factor, out=result)

    calls: dict[str, Call] = {COPY: lambda: target.copy_(source), FLOAT32: lambda: product(False)}
    if device.is_cuda:
        calls |= {TF32: lambda: product(True), LAUNCH: _launch(device)}
    seconds = measure(calls, rounds, device.stopwatch)
    multiply(tf32=device.tf32)
    moved, operations = 2 * source.nbytes, 2 * sizes.product**3
    rows = [Row(COPY, {}, {"GB/s": moved / seconds[COPY] / 1e9})]
    for name in (FLOAT32, TF32):
        rows.append(Row(name, {}, {"TFLOP/s": operations / seconds[name] / 1e12} if name in seconds else {}))
    rows.append(Row(LAUNCH, {}, {"µs": seconds[LAUNCH] * 1e6} if LAUNCH in seconds else {}))
    notes = [f"{name}: {NOT_RUN}" for name in (TF32, LAUNCH) if name not in seconds]
    rate = operations / seconds[TF32 if device.tf32 else FLOAT32]
    return Ceilings(moved / seconds[COPY], rate, seconds.get(LAUNCH, nan)), Table("What the card can do", rows, notes)


def _launch(device: Device) -> Call:
    small = torch.zeros(1, device=device.device)
    replay = device.captured(lambda: small.add_(1))

    def launch() -> None:
        replay()
        torch.cuda.synchronize()

    return launch


def step_work(batch: int, hidden: int, lanes: int, num_items: int, embedding_size: int) -> Work:
    """Return the least work of an array model's step: weights and items' rows read once, state in and out, logits out.

    The work that depends on an item alone counts as one read of its embedding, though the table's row may be wider.
    """
    weights = 4 * lanes * hidden * hidden + hidden * num_items
    items = min(batch, num_items) * embedding_size
    state = 2 * (lanes + 1) * hidden * batch
    return Work(FLOAT * (weights + items + state + batch * num_items), 2 * batch * weights)


def training_work(batch: int, steps: int, input_size: int, hidden: int, lanes: int) -> Work:
    """Return the least work of an array layer's passes: each product once forward, and twice for the gradients.

    The bytes are those of the weights and their gradients, once, and of inputs, outputs and the gradients of both.
    """
    weights = 4 * lanes * hidden * (input_size + hidden)
    return Work(FLOAT * 2 * (weights + batch * steps * (input_size + hidden)), 6 * batch * steps * weights)
