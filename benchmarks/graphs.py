"""How fast the exported graphs run, beside eager torch, array-lstm 0.0.1 and onnxruntime's own LSTM operator.

    python benchmarks/graphs.py            # the array cell
    python benchmarks/graphs.py --cells    # every cell of the registry

The LSTM operator runs H units with one memory cell on ready-made vectors: neither embedding nor logits are in its time.
A cell with k lanes has about k times its work. The sequence is run with V items and with one: the
graph computes logits that nobody asks for, so a single one comes closest to the states alone.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from cells import DISAGREED, PEERS, lanes, peer_of
from cyclopts import App, Parameter
from onnx import ModelProto, TensorProto, helper, numpy_helper
from report import Row, Table, output, show, write_json
from timing import PACKAGES, Call, TimingOptions, measure, single_thread, timed
from torch import nn

from arraylstm import CELLS, LSTM, Cell, NextItemModel, console
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.graph.opset import IR_VERSION, OPSET
from arraylstm_export.interface import Interface

Array = npt.NDArray[Any]

app = App(name="graphs", help=__doc__, result_action="return_value")

GRAPH, EAGER, PEER, OPERATOR = "graph", "eager", "array-lstm", "LSTM op"
_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is run."""

    cells: bool = False
    """Measure every cell of the registry, not the array cell alone."""
    batches: tuple[int, ...] = (1, 8, 64, 256)
    """Rows of the step graph."""
    batch: int = 64
    """B, sequences at once."""
    steps: int = 100
    """S, length of a sequence."""
    num_items: int = 1000
    """V, items to choose from."""
    embedding_size: int = 64
    """E, width of the item embedding."""
    hidden_size: int = 128
    """H, hidden units."""
    k: int = 4
    """Memory cells a unit, for the cells that have several."""


class DisagreementError(Exception):
    """Two forms of one model gave different numbers."""


@app.default
def main(
    *,
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
    timing: Annotated[TimingOptions, Parameter(name="*")] = TimingOptions(rounds=15),
) -> int:
    """Time one step and whole sequences. Exit status: 1 if two forms of one model disagree."""
    single_thread()
    out = output()
    step_rows: list[Row] = []
    sequence_rows: list[Row] = []
    try:
        for cell in CELLS if sizes.cells else ("array",):
            for num_items in (sizes.num_items, 1):
                out.print(f"{cell}, V={num_items}: exporting, comparing, timing ...")
                torch.manual_seed(0)
                shape = (cell, num_items, sizes.hidden_size, sizes.k, 1, sizes.embedding_size)
                model = NextItemModel(*shape).eval()
                graphs = GraphBuilder(model, Interface.of(model), "fp32", OPSET, IR_VERSION, {})
                if num_items == sizes.num_items:
                    out.print(_nodes(graphs), soft_wrap=True)
                    step_rows += [compare_step(model, graphs.step, batch, timing.rounds) for batch in sizes.batches]
                sequence_rows.append(compare_sequence(model, graphs.sequence, sizes, timing.rounds))
    except DisagreementError as error:
        out.print(f"[red]{error}[/red]")
        return DISAGREED
    tables = [Table("One step", step_rows), Table(f"{sizes.steps} steps, B={sizes.batch}", sequence_rows)]
    for table in tables:
        show(table, out)
    if timing.json is not None:
        write_json(timing.json, asdict(sizes) | {"rounds": timing.rounds, "threads": 1}, PACKAGES, tables)
    return 0


@torch.no_grad()
def compare_step(model: NextItemModel, step: ModelProto, batch: int, rounds: int) -> Row:
    """Time one step of a batch as a graph and eagerly, beside one step of the LSTM operator."""
    items, state = _batch(model, (batch,))
    tensors = [torch.from_numpy(tensor) for tensor in state]
    names = [tensor.name for tensor in Interface.of(model).step.inputs]
    loaded, feed = session(step), dict(zip(names, [items, *state], strict=True))

    def graph() -> Sequence[Array]:
        return loaded.run(None, feed)  # type: ignore[no-any-return]

    def eager() -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.no_grad():
            return model.step(torch.from_numpy(items), tensors)

    logits, following = eager()
    require_equal(f"step graph and eager torch, B={batch}", graph(), [logits, *following])
    times = measure({GRAPH: graph, EAGER: eager, OPERATOR: operator(model, batch, 1)}, rounds)
    return _row(f"{model.config['cell']} B={batch}", times, model)


@torch.no_grad()
def compare_sequence(model: NextItemModel, sequence: ModelProto, sizes: Sizes, rounds: int) -> Row:
    """Time whole sequences as a graph, eagerly and through array-lstm, beside the LSTM operator."""
    items, state = _batch(model, (sizes.batch, sizes.steps))
    lengths = np.full(sizes.batch, sizes.steps)
    interface = Interface.of(model)
    names = [tensor.name for tensor in interface.sequence.inputs]
    loaded = session(sequence)
    feed = dict(zip(names, [items, lengths, *(np.zeros_like(tensor) for tensor in state)], strict=True))
    tensor = torch.from_numpy(items)

    def eager() -> torch.Tensor:
        with torch.no_grad():
            return model(tensor)[0]  # type: ignore[no-any-return]

    calls: dict[str, Call] = {GRAPH: lambda: loaded.run(None, feed), EAGER: eager}
    require_equal("sequence graph and eager torch", loaded.run(None, feed)[:1], [eager()])
    if model.config["cell"] in PEERS:
        theirs = _through_peer(model, tensor)
        require_equal("array-lstm and eager torch", [theirs()], [eager()])
        calls[PEER] = theirs
    times = measure(calls | {OPERATOR: operator(model, sizes.batch, sizes.steps)}, rounds)
    return _row(f"{model.config['cell']} V={model.num_items}", times, model)


def _through_peer(model: NextItemModel, items: torch.Tensor) -> Call:
    """Return the model's forward pass with array-lstm's layer between its embedding and its linear layer."""
    peer = peer_of(model.config["cell"], _cell(model)).eval()
    assert model.embedding is not None  # `Sizes` gives every model one
    whole = nn.Sequential(model.embedding, peer)

    @torch.no_grad()
    def run() -> torch.Tensor:
        outputs, _ = whole(items)
        return model.linear(outputs)  # type: ignore[no-any-return]

    return run


def _batch(model: NextItemModel, shape: tuple[int, ...]) -> tuple[Array, list[Array]]:
    """Draw items of a shape, and a state for each row."""
    rng = np.random.default_rng(0)
    items = rng.integers(0, model.num_items, shape)
    states = [rng.uniform(-1, 1, (shape[0], *state.shape)).astype(np.float32) for state in Interface.of(model).states]
    return items, states


def _cell(model: NextItemModel) -> Cell:
    return model.cells["0"]  # type: ignore[return-value]  # ModuleDict hides the cells' type


def _row(name: str, times: dict[str, float], model: NextItemModel) -> Row:
    references = {name: seconds for name, seconds in times.items() if name != GRAPH}
    return timed(name, times[GRAPH], references | {f"k {OPERATOR}": lanes(_cell(model)) * times[OPERATOR]})


def require_equal(what: str, actual: Sequence[Any], expected: Sequence[Any]) -> None:
    """Raise unless three rows in four are equal throughout.

    A stochastic cell may take another of two equal lanes, and that row goes its own way: the exporter's parity checks
    judge those; here it is enough to know that one thing is timed.
    """
    for ours, theirs in zip(actual, expected, strict=True):
        rows = np.abs(np.asarray(ours) - np.asarray(theirs)).reshape(len(ours), -1).max(1)
        if not np.quantile(rows, 0.75) <= _TOLERANCE:
            raise DisagreementError(f"{what} differ by {rows.max():.1e}: nothing more was timed")


# -- onnxruntime ------------------------------------------------------------------------------------------------


def session(model: ModelProto, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """Load a graph for one thread that does not spin; write what onnxruntime makes of it where asked."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # no warning that an optimized graph suits this machine only
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _nodes(graphs: GraphBuilder) -> str:
    """Tell the nodes of the step graph, as exported and as onnxruntime runs them, and of the sequence graph's loop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session(graphs.step, path)
        run = Counter(node.op_type for node in onnx.load(path).graph.node)
    kinds = ", ".join(f"{count} {kind}" for kind, count in run.most_common())
    bodies = [
        attribute.g for node in graphs.sequence.graph.node for attribute in node.attribute if attribute.HasField("g")
    ]
    loop = f"{len(bodies[0].node)} in the loop of the sequence graph" if bodies else "no loop in the sequence graph"
    return f"  step graph: {len(graphs.step.graph.node)} nodes; onnxruntime runs {run.total()}: {kinds}; {loop}"


def operator(model: NextItemModel, batch: int, steps: int) -> Call:
    """Return a run of onnxruntime's LSTM operator as wide as the model's cell, checked against the lstm cell."""
    width = _cell(model).input_size
    cell = LSTM(width, model.config["hidden_size"])
    loaded = session(operator_graph(cell))
    x, state = torch.randn(batch, steps, width), torch.randn(2, 1, batch, cell.hidden_size)
    feed = dict(zip(("X", "h", "c"), [x.transpose(0, 1).contiguous().numpy(), *state.numpy()], strict=True))
    with torch.no_grad():
        expected, _ = cell(x, (state[0], state[1]))
    require_equal("LSTM operator and lstm cell", [loaded.run(None, feed)[0][:, 0].swapaxes(0, 1)], [expected])
    return lambda: loaded.run(None, feed)


def operator_graph(cell: LSTM) -> ModelProto:
    """Return a graph of one LSTM node: X (S, B, I), h and c (1, B, H) -> Y (S, 1, B, H), the last h and c."""

    def iofc(weight: torch.Tensor) -> torch.Tensor:
        f, i, o, g = weight.detach().chunk(4)
        return torch.cat([i, o, f, g])

    weights = {
        "W": iofc(cell.i2h.weight),
        "R": iofc(cell.h2h.weight),
        "B": torch.cat([iofc(cell.i2h.bias), iofc(cell.h2h.bias)]),
    }
    state = dict.fromkeys(("h", "c", "Y_h", "Y_c"), (1, "B", cell.hidden_size))
    shapes = state | {"X": ("S", "B", cell.input_size), "Y": ("S", 1, "B", cell.hidden_size)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    outputs = ["Y", "Y_h", "Y_c"]
    node = helper.make_node("LSTM", ["X", *weights, "", "h", "c"], outputs, hidden_size=cell.hidden_size)
    graph = helper.make_graph(
        [node],
        "lstm",
        [values[name] for name in ("X", "h", "c")],
        [values[name] for name in outputs],
        [numpy_helper.from_array(weight.unsqueeze(0).numpy(), name) for name, weight in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


if __name__ == "__main__":
    console.run(app)
