"""`arraylstm-export`: turn a model file into a verified bundle."""

from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from arraylstm import CELLS, ItemModel, Vocabulary, __version__, console, load
from arraylstm_export.bundle import SEQUENCE, STEP, TORCHSCRIPT, export
from arraylstm_export.parity import Report
from arraylstm_export.report import as_table

PARITY_FAILED = 1

app = App(name="arraylstm-export", version=__version__, result_action="return_value")


@app.default
def export_model(
    model: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    cell: Annotated[str | None, Parameter(help=f"Cell of a bare state dict: {', '.join(CELLS)}.")] = None,
    vocabulary: Path | None = None,
    tolerance: float = 1e-5,
    traces: bool = False,
) -> int:
    """Write a model as ONNX and TorchScript graphs with explicit recurrent state, proven equal to PyTorch.

    Exit status: 0 written and within tolerance; 1 a parity check failed, nothing was written; 2 bad input.

    Args:
        model: model.pt or model.safetensors of arraylstm-train, or a state dict of MyNetwork, of a network around
            nn.LSTM, or of LSTM2002.
        output: folder to create; a bundle that is already there is replaced.
        vocabulary: labels of a state dict's items: .json with a list or a bundle's vocabulary, else a label a line.
        tolerance: largest difference from float64 PyTorch that passes: |a - b| / max(1, |b|).
        traces: give the ONNX graphs what the cells show of themselves (markov: z and q_z) as further outputs.
    """
    out = Console()
    loaded = load(model, cell, None if vocabulary is None else Vocabulary.read(vocabulary))
    parity = _export_with_progress(loaded, output, tolerance, traces, out)
    out.print(as_table(parity))
    if not parity.passed:
        message = f"Parity failed: {parity.failure}. Nothing was written to {output}."
        out.print(message, style="red", soft_wrap=True, markup=False)
        return PARITY_FAILED
    out.print(_sizes(output))
    out.print(f"Wrote {output}. Next: arraylstm-serve {output}", soft_wrap=True, markup=False)
    return 0


def _export_with_progress(model: ItemModel, output: Path, tolerance: float, traces: bool, out: Console) -> Report:
    with Progress(console=out, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{stage:20}", completed=done, total=total)

        return export(model, output, tolerance, traces, show)


def _sizes(output: Path) -> Table:
    table = console.make_table("file", "bytes")
    for name in (STEP, SEQUENCE, TORCHSCRIPT):
        table.add_row(name, f"{(output / name).stat().st_size:>12,}")
    return table


def main() -> NoReturn:
    """Run the program."""
    console.run(app)
