"""Compare how fast the cells train and infer with array-lstm 0.0.1 (same weights) and with torch.nn.LSTM.

    python benchmarks/cells.py

Every cell is first compared with array-lstm in float64: outputs, states and gradients. A cell with k lanes does about k
times the work of nn.LSTM(H). In the column "k nn.LSTM(H)", a layer that is as well fused as nn.LSTM would have 1.
In training, StochasticArrayLSTM draws its lane; array-lstm does not.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import torch
from cyclopts import App, Parameter
from reference import arrayLSTM
from report import Row, Table, output, show, write_json
from timing import PACKAGES, Call, TimingOptions, measure, single_thread, timed
from torch import Tensor, nn

from arraylstm import CELLS, Cell, Stack, console
from arraylstm.cells import make_cell

app = App(name="cells", help=__doc__, result_action="return_value")

PEERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "lstm": lambda input_size, hidden_size, k: arrayLSTM.LSTM(input_size, hidden_size),
    "array": arrayLSTM.ArrayLSTM,
    "attention": arrayLSTM.extensions.AttentionArrayLSTM,
    "attention-max": partial(arrayLSTM.extensions.AttentionArrayLSTM, max_pooling=True),
    "stochastic": arrayLSTM.extensions.StochasticArrayLSTM,
}
FLOOR = "nn.LSTM(H)"
DISAGREED = 1
_TOLERANCE = 1e-9
_CHECKED_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the layers and of the batch."""

    batch: int = 64
    """B, sequences in a batch."""
    steps: int = 100
    """S, length of a sequence."""
    input_size: int = 64
    """I, width of the input."""
    hidden_size: int = 128
    """H, hidden units."""
    k: int = 4
    """Memory cells a unit, for the cells that have several."""


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(),
) -> int:
    """Time forward + backward, and forward alone. Exit status: 1 if a cell and array-lstm disagree."""
    single_thread()
    out = output()
    cells = {name: make_cell(name, sizes.input_size, sizes.hidden_size, sizes.k) for name in CELLS}
    peers = {name: peer_of(name, cell) for name, cell in cells.items() if name in PEERS}
    differences = {name: disagreement(cells[name], peer, sizes) for name, peer in peers.items()}
    shown = ", ".join(f"{name} {difference:.0e}" for name, difference in differences.items())
    out.print(f"Largest difference from array-lstm in float64, gradients included: {shown}", soft_wrap=True)
    if not max(differences.values()) <= _TOLERANCE:
        out.print(f"[red]More than {_TOLERANCE:.0e}[/red]: nothing was timed.")
        return DISAGREED
    tables = []
    for title, training in (("Training: forward + backward", True), ("Inference: forward", False)):
        out.print(f"{title}, {timing.rounds} rounds ...")
        tables.append(Table(title, compare(cells, peers, sizes, timing.rounds, training)))
        show(tables[-1], out)
    if timing.json is not None:
        write_json(timing.json, asdict(sizes) | {"rounds": timing.rounds, "threads": 1}, PACKAGES, tables)
    return 0


def peer_of(name: str, cell: Cell) -> nn.Module:
    """Return array-lstm's layer of that name with the weights of a registry cell."""
    peer = PEERS[name](cell.input_size, cell.hidden_size, lanes(cell))
    peer.load_state_dict(cell.state_dict())
    return peer


def lanes(cell: Cell) -> int:
    """Return k, or 1 for a cell that has no lanes."""
    return getattr(cell, "k", 1)


def disagreement(cell: Cell, peer: nn.Module, sizes: Sizes) -> float:
    """Return the largest difference of outputs, states and gradients of a few steps from a random state."""
    torch.set_default_dtype(torch.float64)  # array-lstm's zero states have the default dtype
    try:
        x = torch.randn(sizes.batch, min(sizes.steps, _CHECKED_STEPS), sizes.input_size, requires_grad=True)
        h = torch.randn(1, sizes.batch, sizes.hidden_size)
        c = torch.randn(lanes(cell), sizes.batch, sizes.hidden_size)
        ours, theirs = (_results(copy.deepcopy(layer).double().eval(), x, h, c) for layer in (cell, peer))
    finally:
        torch.set_default_dtype(torch.float32)
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True))


def _results(layer: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> list[Tensor]:
    outputs, state = layer(x, (h.clone(), c.clone()))  # array-lstm writes to the state it is given
    weights = dict(sorted(layer.named_parameters()))
    return [outputs, *state, *torch.autograd.grad(outputs.square().sum(), [x, *weights.values()])]


def compare(
    cells: Mapping[str, Cell], peers: Mapping[str, nn.Module], sizes: Sizes, rounds: int, training: bool
) -> list[Row]:
    """Time every layer on one batch."""
    floor = nn.LSTM(sizes.input_size, sizes.hidden_size, batch_first=True)
    ours = {name: Stack([cell]) for name, cell in cells.items()}  # a Stack calls every cell in the same way
    layers = {**ours, **{f"array-lstm's {name}": peer for name, peer in peers.items()}, FLOOR: floor}
    x = torch.randn(sizes.batch, sizes.steps, sizes.input_size)
    times = measure({name: run(layer.train(training), x) for name, layer in layers.items()}, rounds)
    rows = []
    for name, cell in cells.items():
        peer = {"array-lstm": times[f"array-lstm's {name}"]} if name in peers else {}
        bounds = {FLOOR: times[FLOOR], f"k {FLOOR}": lanes(cell) * times[FLOOR]}
        rows.append(timed(name, times[name], peer | bounds))
    return [*rows, timed(FLOOR, times[FLOOR])]


def run(layer: nn.Module, x: Tensor) -> Call:
    """Return one training step (the input's gradient too, but no optimizer step), or one forward pass."""

    def train() -> object:
        outputs, _ = layer(given)
        return torch.autograd.grad(outputs, [given, *layer.parameters()], cotangent)

    @torch.no_grad()
    def infer() -> object:
        return layer(x)

    given = x.clone().requires_grad_()
    cotangent = torch.ones_like(layer(x)[0])
    return train if layer.training else infer


if __name__ == "__main__":
    console.run(app)
