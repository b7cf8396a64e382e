"""The tables that the command line prints: of an export's files and differences, and of what a bundle is."""

import json
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path

import onnx
from rich.filesize import decimal
from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.bundle.checked import CheckedBundle
from arraylstm_export.bundle.manifest import Manifest, read_manifest, signature_from, state_from
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.registry import FORMATS, form_file
from arraylstm_export.formats.timing import seconds_per_step
from arraylstm_export.interface import METADATA, ZEROS, Signature, State
from arraylstm_export.parity.accuracy import Accuracy
from arraylstm_export.parity.render import HEADINGS, cells
from arraylstm_export.parity.report import Report

# -- an export ----------------------------------------------------------------------------------------------------


def parity_table(report: Report) -> Table:
    """Return one row per form: its worst check."""
    table = make_table(*HEADINGS[:4], "")
    table.columns[1].justify = "right"
    for check in report.worst_by_form():
        row = cells(check)
        table.add_row(*row[:4], row[-1], style="" if check.passed else "red")
    return table


def files_table(bundle: CheckedBundle) -> Table:
    """Return a row for every file that holds a form: its size, the largest difference, and the time of a step."""
    table = make_table("format", "file", "size", "largest difference", "time per step")
    for column in table.columns[2:]:
        column.justify = "right"
    interface, sizes, checks = bundle.manifest.interface, bundle.manifest.sizes, bundle.report.checks
    for format, file in ((name, file) for name in bundle.manifest.formats for file in FORMATS[name].files):
        run = next(run for form, run in bundle.forms.items() if form_file(form) == file)
        difference = max(check.difference for check in checks if form_file(check.form) == file)
        step = f"{seconds_per_step(run, interface) * 1e3:,.3f} ms"
        table.add_row(format, file, decimal(sizes[file]), f"{difference:.1e}", step)
    table.caption, table.caption_justify = "time per step: one row, one thread, this machine", "left"
    return table


def accuracy_table(accuracy: Accuracy) -> Table:
    """Return what a lower precision costs on held-out sessions."""
    table = make_table(f"on {accuracy.steps:,} held-out steps", "fp32", "as written")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in accuracy.rows():
        table.add_row(*row)
    return table


# -- a bundle or a graph ------------------------------------------------------------------------------------------


def description(path: Path) -> list[Table]:
    """Return tables of a bundle's model, of the inputs and outputs of its graphs, and of its files.

    For a single graph they are made from the graph's own metadata, which say nothing about files.

    Raises:
        ExportError: the path is neither a bundle nor a graph.
    """
    return _of_graph(path) if path.is_file() else _of_bundle(read_manifest(path))


def _of_bundle(manifest: Manifest) -> list[Table]:
    opset, ir_version = manifest.onnx_versions
    facts = {
        **manifest.model,
        "fingerprint": manifest.fingerprint,
        "precision": manifest.precision,
        "a session starts from": _starts(manifest.interface.states),
        "ONNX": _versions(opset, ir_version),
        "parity": f"largest difference {manifest.reached:.1e}, {manifest.allowed:g} allowed",
        "written by": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    return [_facts(facts), *starmap(_tensors, manifest.graphs.items()), _files(manifest.sizes)]


def _of_graph(path: Path) -> list[Table]:
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
        own = {prop.key.removeprefix(METADATA): prop.value for prop in model.metadata_props}
        facts = {
            **json.loads(own["model"]),
            "fingerprint": own["fingerprint"],
            "precision": own["precision"],
            "a session starts from": _starts(tuple(map(state_from, json.loads(own["states"])))),
            "ONNX": _versions(model.opset_import[0].version, model.ir_version),
        }
        signature = signature_from({kind: json.loads(own[kind]) for kind in ("inputs", "outputs")})
        return [_facts(facts), _tensors(path.name, signature)]
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # a strange file can make the parser fail in any way
        raise ExportError(f"{path}: is not a graph from arraylstm-export") from None


def _starts(states: Sequence[State]) -> str:
    """Return what states start from, in words; the numbers of one are in the manifest and in a graph's metadata."""
    learned = [
        f"{s.name} of {min(s.initial):.3g} to {max(s.initial):.3g}" for s in states if not isinstance(s.initial, str)
    ]
    return "; ".join(learned) + (f"; {ZEROS} in the others" if len(learned) < len(states) else "") if learned else ZEROS


def _versions(opset: int, ir_version: int) -> str:
    return f"opset {opset}, IR version {ir_version}"


def _facts(rows: Mapping[str, object]) -> Table:
    facts = make_table("", "")
    facts.show_header = False
    facts.columns[1].no_wrap = False
    for name, value in rows.items():
        facts.add_row(name, str(value))
    return facts


def _tensors(file: str, signature: Signature) -> Table:
    table = make_table(file, "name", "type", "shape")
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            table.add_row(kind, tensor.name, tensor.dtype, f"[{', '.join(map(str, tensor.shape))}]")
    return table


def _files(sizes: Mapping[str, int]) -> Table:
    """Return a table with a row for every file, and one for each folder."""
    found: dict[str, list[int]] = {}
    for name, size in sizes.items():
        top, below, _ = name.partition("/")
        found.setdefault(top + below, []).append(size)
    table = make_table("file", "size", "files")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, each in found.items():
        table.add_row(name, decimal(sum(each)), str(len(each)) if name.endswith("/") else "")
    return table
