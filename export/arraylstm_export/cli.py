"""`arraylstm-export`: export a model file as a verified bundle, verify a bundle again, and show what it is."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from arraylstm import ItemModel, UnknownItemError, Vocabulary, __version__, console, load
from arraylstm.data import DataOptions, read_sessions
from arraylstm.foreign import Hints
from arraylstm_export.arrays import Array
from arraylstm_export.bundle.checked import CheckedBundle, OnStage
from arraylstm_export.bundle.verify import check_bundle
from arraylstm_export.bundle.write import write_bundle
from arraylstm_export.errors import ExportError
from arraylstm_export.options import Options
from arraylstm_export.parity.render import headline, not_compared
from arraylstm_export.parity.report import Report
from arraylstm_export.parity.scenarios import Coverage
from arraylstm_export.terminal import accuracy_table, description, files_table, parity_table

PARITY_FAILED = 1
_UNBOUNDED = 1000
_USED_BY_REPLAY = {"tolerance"}
_USED_BY_VERIFY = {*_USED_BY_REPLAY, "strict", *(field.name for field in fields(Coverage))}

app = App(
    name="arraylstm-export",
    version=__version__,
    result_action="return_value",
    default_parameter=Parameter(negative=()),
)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _held_out_flag(name: str) -> str:
    return f"held-out-{_flag(name)}"


@app.default
def export_model(
    model: Path | None = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    verify: Path | None = None,
    vocabulary: Path | None = None,
    hints: Annotated[Hints, Parameter(name="*", group="A state dict of another program")] = Hints(),
    options: Annotated[Options, Parameter(name="*")] = Options(),
    held_out: Path | None = None,
    held_out_data: Annotated[DataOptions, Parameter(name="*", name_transform=_held_out_flag)] = DataOptions(),
) -> int:
    """Write a model as ONNX and TorchScript graphs with explicit recurrent state, proven equal to PyTorch.

    Exit status: 0 written and within tolerance; 1 a parity check failed, nothing was written; 2 bad input.

    Args:
        model: model.pt or model.safetensors of arraylstm-train, or a state dict of MyNetwork, of a network around
            nn.LSTM, or of LSTM2002, alone or in a training checkpoint.
        output: folder to create; a bundle that is there already is replaced. Without it, the folder is beside the model
            and has its name: model for model.pt.
        verify: bundle to verify again: against the model or, without one, against its own test vectors.
        vocabulary: labels of a state dict's items: .json with a list or a bundle's vocabulary, else one label per line.
        hints: what the state dict's keys and shapes leave open.
        held_out: event file that the model was not trained on; needed below fp32, to measure what the precision costs.
        held_out_data: how to read the event file.
    """
    out = _console()
    _check_files_given(model, hints, vocabulary, held_out, held_out_data)
    labels = None if vocabulary is None else Vocabulary.read(vocabulary)
    loaded = None if model is None else load(model, vocabulary=labels, **asdict(hints))
    if verify is not None:
        _check_only_verify(loaded, output, held_out, options)
        return _verify(verify, loaded, options, out)
    if model is None or loaded is None:
        raise ExportError("give a model file, such as the model.pt of arraylstm-train; see arraylstm-export --help")
    sequences = [] if held_out is None else _read_held_out(held_out, held_out_data, loaded)
    return _write(loaded, output or _named_after(model), options, sequences, out)


@app.command
def inspect(path: Path, /) -> int:
    """Show a bundle: its model, the inputs and outputs of its graphs, its files.

    Args:
        path: a bundle, or an .onnx file from one.
    """
    out = _console()
    for table in description(path):
        out.print(table)
    return 0


def _named_after(model: Path) -> Path:
    """Return the folder that a model's bundle is written to by default."""
    if not model.suffix:
        raise ExportError(f"{model}: has no suffix that its bundle's name could lack; name a folder with --output DIR")
    return model.with_suffix("")


def _write(model: ItemModel, output: Path, options: Options, held_out: list[Array], out: Console) -> int:
    bundle = _with_progress(lambda show: write_bundle(model, output, options, held_out, show))
    if not bundle.report.passed:
        return _fail(bundle.report, f"Nothing was written to {output}.", out)
    _succeed(bundle, out)
    if bundle.report.accuracy is not None:
        out.print(accuracy_table(bundle.report.accuracy))
    following = f" Next: {_command('arraylstm-serve', output)}" if "onnx" in options.formats else ""
    out.print(f"Wrote {output}.{following}", soft_wrap=True, markup=False)
    return 0


def _command(program: str, path: Path) -> str:
    """Return the command as a shell takes it."""
    return f"{program} {shlex.quote(str(path))}"


def _verify(directory: Path, model: ItemModel | None, options: Options, out: Console) -> int:
    bundle = _with_progress(
        lambda show: check_bundle(directory, model, options.tolerance, options.strict, options.coverage, show)
    )
    if not bundle.report.passed:
        return _fail(bundle.report, f"Do not use {directory}.", out)
    _succeed(bundle, out)
    oracle = "its own test vectors" if model is None else "the model"
    out.print(f"{directory} is unchanged since it was written, and equal to {oracle}.", soft_wrap=True, markup=False)
    return 0


def _check_files_given(
    model: Path | None, hints: Hints, vocabulary: Path | None, held_out: Path | None, held_out_data: DataOptions
) -> None:
    """Refuse flags that say how to read a file that is not given."""
    for name in map(_flag, [*hints.given(), *(["vocabulary"] if vocabulary else [])]):
        if model is None:
            raise ExportError(f"--{name} describes a model file: give one, or leave out --{name}")
    for flag in map(_held_out_flag, _changed(held_out_data)):
        if held_out is None:
            raise ExportError(f"--{flag} describes an event file: give one with --held-out FILE, or leave out --{flag}")


def _check_only_verify(model: ItemModel | None, output: Path | None, held_out: Path | None, options: Options) -> None:
    """Refuse flags that --verify would ignore."""
    if output is not None:
        raise ExportError("--verify checks a bundle and --output writes one: give one of them")
    if held_out is not None:
        raise ExportError("--verify does not measure what a precision costs: leave out --held-out")
    for name in _changed(options):
        if name not in _USED_BY_VERIFY:
            raise ExportError(f"--verify checks a bundle as it was written: leave out --{_flag(name)}")
        if model is None and name not in _USED_BY_REPLAY:
            raise ExportError(f"--verify without a model replays a bundle's test vectors: leave out --{_flag(name)}")


def _changed(options: Options | Coverage | DataOptions) -> Iterator[str]:
    """Yield the names of the options, nested ones too, that are not at their defaults."""
    usual = type(options)()
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Coverage):
            yield from _changed(value)
        elif value != getattr(usual, field.name):
            yield field.name


def _succeed(bundle: CheckedBundle, out: Console) -> None:
    _print_headline(bundle.report, out)
    out.print(files_table(bundle))


def _fail(report: Report, consequence: str, out: Console) -> int:
    _print_headline(report, out)
    out.print(parity_table(report))
    out.print(f"Parity failed: {report.failure}. {consequence}", style="red", soft_wrap=True, markup=False)
    return PARITY_FAILED


def _print_headline(report: Report, out: Console) -> None:
    out.print(f"Parity with float64 PyTorch: {headline(report)}.", soft_wrap=True, markup=False, highlight=False)
    for line in not_compared(report):
        out.print(f"{line}.", soft_wrap=True, markup=False, highlight=False)


def _console() -> Console:
    """Return where tables are printed: on the terminal, or without a limit to their width into a file or a pipe."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_UNBOUNDED)


def _with_progress(work: Callable[[OnStage], CheckedBundle]) -> CheckedBundle:
    """Run the work with a progress bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:  # some versions of rich end even a bar that is not shown with an empty line
        return work(lambda stage, done, total: None)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        return work(lambda stage, done, total: bar.update(task, description=f"{stage:20}", completed=done, total=total))


def _read_held_out(path: Path, options: DataOptions, model: ItemModel) -> list[Array]:
    """Return a file's sessions as item ids; a label in the file is taken as a string, else as the int it spells."""
    vocabulary = model.vocabulary or Vocabulary(range(model.num_items))
    numbers = {str(label): label for label in vocabulary.labels if isinstance(label, int)}
    sessions, _ = read_sessions(path, options, "--held-out-")
    try:
        return [
            np.array(vocabulary.encode(text if text in vocabulary else numbers.get(text, text) for text in session))
            for session in sessions
        ]
    except UnknownItemError as error:
        raise ExportError(f"{path}: {error}") from None


def main() -> NoReturn:
    """Run the program."""
    console.run(app)
