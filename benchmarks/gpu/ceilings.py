"""What the card can do, measured, and what a step or a training pass cannot do without, counted."""

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
    """What has to be moved and computed at least."""

    bytes: float
    operations: float


@dataclass(frozen=True)
class Ceilings:
    """What the card reached."""

    bandwidth: float
    """Bytes a second, read and written."""
    rate: float
    """Operations a second of a matrix product, as exact as everything else that is measured."""
    launch: float
    """Seconds from the launch of a captured graph to its end, as the host sees it; NaN without CUDA."""

    def floor(self, work: Work) -> float:
        """Return the seconds below which work cannot be done."""
        return max(work.bytes / self.bandwidth, work.operations / self.rate)


def measure_ceilings(device: Device, sizes: CardSizes, rounds: int) -> tuple[Ceilings, Table]:
    """Copy, multiply and launch."""
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
    """Return what one step of an array model takes: weights and items' rows once, state in and out, logits out.

    What an item alone decides is counted as its embedding, read once, though it may be a wider row of a table.
    """
    weights = 4 * lanes * hidden * hidden + hidden * num_items
    items = min(batch, num_items) * embedding_size
    state = 2 * (lanes + 1) * hidden * batch
    return Work(FLOAT * (weights + items + state + batch * num_items), 2 * batch * weights)


def training_work(batch: int, steps: int, input_size: int, hidden: int, lanes: int) -> Work:
    """Return what forward and backward of an array layer take: each product once, and twice again for its gradients.

    Of bytes, the weights and their gradients once, and the inputs, the outputs and the gradients of both.
    """
    weights = 4 * lanes * hidden * (input_size + hidden)
    return Work(FLOAT * 2 * (weights + batch * steps * (input_size + hidden)), 6 * batch * steps * weights)
