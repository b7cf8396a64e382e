"""Time forward and backward passes of the cells, and compare them with array-lstm 0.0.1 and cuDNN's LSTM.

Every cell is first compared with array-lstm in float64, gradients included, and every way to run it with eager torch.
A cell with k lanes does k times the work of nn.LSTM(H).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from cells import FLOOR, PEERS, disagreement, lanes, peer_of, run
from cells import Sizes as CellSizes
from gpu.ceilings import Ceilings, training_work
from gpu.device import NOT_RUN, Device
from gpu.sizes import TrainingSizes, Variant
from report import Row, Table
from timing import measure
from torch import Tensor, nn

from arraylstm import Cell, Stack
from arraylstm.cells import make_cell

PEER, EAGER = "array-lstm", "eager"
_EXACT, _TOLERANCE, _TF32_TOLERANCE = 1e-9, 1e-3, 1e-2  # the last two are relative to the largest gradient

Pass = Callable[[], Sequence[Tensor]]
"""One forward and one backward pass; returns the gradients of the input and of all weights."""


def tables(device: Device, ceilings: Ceilings, sizes: TrainingSizes, rounds: int) -> Iterator[Table]:
    """Measure every cell: a table for each."""
    for name in sizes.cells or PEERS:
        yield _table(name, device, ceilings, sizes, rounds)
        torch.compiler.reset()  # else the next cell's compilations count towards this one's limit


def _table(name: str, device: Device, ceilings: Ceilings, sizes: TrainingSizes, rounds: int) -> Table:
    shape = CellSizes(
        batch=sizes.train_batch,
        steps=sizes.train_steps,
        input_size=sizes.train_input,
        hidden_size=sizes.train_hidden,
        k=sizes.train_lanes,
    )
    torch.manual_seed(0)
    cell = make_cell(name, shape.input_size, shape.hidden_size, shape.k).to(device.device)
    x = torch.randn(shape.batch, shape.steps, shape.input_size).to(device.device)
    passes: dict[str, Pass] = {EAGER: run(_layer(cell), x)}
    notes = [f"{FLOOR} is cuDNN's"] if device.is_cuda else []
    for variant in sizes.variants:
        if device.is_cuda or variant not in NEEDS_CUDA:
            passes[variant] = VARIANTS[variant](cell, x, device)
        else:
            notes.append(f"{variant}: {NOT_RUN}")
    passes, wrong = _agreeing(passes, _TF32_TOLERANCE if device.tf32 else _TOLERANCE)
    notes += wrong
    if name in PEERS:
        peer = peer_of(name, cell).to(device.device)
        with torch.device(device.device):
            difference = disagreement(cell, peer, shape)
        if difference <= _EXACT:
            passes[PEER] = run(peer.train(), x)
        else:
            notes.append(f"{PEER}: left out, {difference:.1e} from {name} in float64")
    lstm = nn.LSTM(shape.input_size, shape.hidden_size, batch_first=True)
    passes[FLOOR] = run(lstm.to(device.device), x)
    work = training_work(shape.batch, shape.steps, shape.input_size, shape.hidden_size, lanes(cell))
    rows = _rows(measure(passes, rounds, device.stopwatch), ceilings.floor(work), lanes(cell))
    missing = [Row(variant) for variant in sizes.variants if variant not in passes]
    title = f"Training of {name}: forward + backward, B={shape.batch} S={shape.steps} I={shape.input_size}"
    return Table(f"{title} H={shape.hidden_size} k={lanes(cell)}", [*rows, *missing], notes)


def _rows(seconds: Mapping[str, float], floor: float, k: int) -> list[Row]:
    bounds = {FLOOR: seconds[FLOOR], f"k {FLOOR}": k * seconds[FLOOR], "floor": floor}
    references = ({PEER: seconds[PEER]} if PEER in seconds else {}) | bounds
    return [
        Row(name, {f"/ {column}": took / reference for column, reference in references.items()}, {"ms": took * 1e3})
        for name, took in seconds.items()
    ]


def _agreeing(passes: dict[str, Pass], tolerance: float) -> tuple[dict[str, Pass], list[str]]:
    """Return the passes that have the eager one's gradients, and a note on each other.

    Passes of a cell that draws its lanes each time are not compared.
    """
    expected, again = (passes[EAGER]() for _ in range(2))
    if _difference(expected, again) > tolerance:
        return passes, ["lanes are drawn: the ways to run it were not compared"]
    differences = {name: _difference(one(), expected) for name, one in passes.items()}
    wrong = {name: difference for name, difference in differences.items() if not difference <= tolerance}
    notes = [f"{name}: left out, its gradients are {difference:.1e} off" for name, difference in wrong.items()]
    return {name: one for name, one in passes.items() if name not in wrong}, notes


def _difference(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(actual, expected, strict=True))


# -- ways to run a cell -------------------------------------------------------------------------------------------


def _layer(cell: Cell) -> Stack:
    return Stack([cell]).train()


def compiled_step(cell: Cell, device: Device) -> Stack:
    """Return a layer whose single step is compiled; the loop over time is Python's."""
    cell = copy.deepcopy(cell)
    cell.step_with_diagnostics = device.compiled(cell.step_with_diagnostics)  # type: ignore[method-assign]
    return _layer(cell)


VARIANTS: dict[Variant, Callable[[Cell, Tensor, Device], Pass]] = {
    "compiled step": lambda cell, x, device: run(compiled_step(cell, device), x),
    "compiled whole": lambda cell, x, device: run(device.compiled(_layer(cell)), x),
    "CUDA graph": lambda cell, x, device: device.captured(run(_layer(cell), x)),
    "CUDA graph of compiled step": lambda cell, x, device: device.captured(run(compiled_step(cell, device), x)),
}
NEEDS_CUDA = {"CUDA graph", "CUDA graph of compiled step"}
