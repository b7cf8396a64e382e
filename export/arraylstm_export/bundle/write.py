"""Write a model as a bundle, with everything an embedding or a server needs; it is proven before it is in place."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from arraylstm import ItemModel, __version__
from arraylstm_export.arrays import Array
from arraylstm_export.bundle.checked import CheckedBundle, OnStage
from arraylstm_export.bundle.folder import check_target, put_in_place, scratch_beside
from arraylstm_export.bundle.manifest import Manifest, schema_version, write_manifest
from arraylstm_export.bundle.model import fingerprint, frozen, vocabulary_fields
from arraylstm_export.bundle.vectors import write_vectors
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.eager import Sequences, StepMethod
from arraylstm_export.formats.onnx import SEQUENCE, STEP
from arraylstm_export.formats.registry import FORMATS, load_forms
from arraylstm_export.formats.runner import Runner
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.interface import Interface
from arraylstm_export.options import Options
from arraylstm_export.parity.accuracy import checked_sequences, compare
from arraylstm_export.parity.checks import verify
from arraylstm_export.parity.reference import Reference
from arraylstm_export.parity.render import as_json, as_markdown
from arraylstm_export.parity.report import Report
from arraylstm_export.runtime import onnxruntime, require_one_runtime


def export(
    model: ItemModel,
    directory: str | Path,
    options: Options = Options(),
    held_out: Sequence[Array] = (),
    on_stage: OnStage = lambda name, done, total: None,
) -> Report:
    """Write the model as a bundle and prove its forms equal to the model.

    A bundle that is already in `directory` is replaced, but only by one that passed.

    Args:
        model: the model; it is exported in eval mode and float32, and is itself not changed.
        directory: folder to create.
        options: formats, precision, versions, and what passes.
        held_out: sequences of item ids (S) int64 that the model was not trained on. They are required below fp32, to
            measure what the precision costs.
        on_stage: called as the export proceeds.

    Returns:
        The parity report. Unless it passed, nothing was left in `directory`.

    Raises:
        ExportError: onnxruntime is installed twice; the folder holds something other than a bundle, or cannot be
            written; the model has no diagnostics to export, starts from a number that is not finite, or cannot be
            written in a format or precision; `held_out` is missing, holds something other than item ids, or has no
            sequence of two items.
    """
    return write_bundle(model, directory, options, held_out, on_stage).report


def write_bundle(
    model: ItemModel, directory: str | Path, options: Options, held_out: Sequence[Array], on_stage: OnStage
) -> CheckedBundle:
    """Write the model as a bundle as `export` does, and return the bundle with its forms loaded."""
    require_one_runtime()
    target = Path(directory).resolve()
    _check_model(model, options.diagnostics)
    sequences = _held_out_sequences(held_out, options.precision, model.num_items)
    try:
        check_target(target)
        graphs = _graph_builder(model, options)
        with scratch_beside(target) as folder:
            for name in options.formats:
                on_stage(f"writing {name}", 0, 1)
                FORMATS[name].write(graphs, folder)
            bundle = _checked(graphs, folder, options, sequences, on_stage)
            if bundle.report.passed:
                put_in_place(folder, target)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}") from None
    return bundle


def _check_model(model: ItemModel, diagnostics: bool) -> None:
    if diagnostics and not model.diagnostic_names:
        raise ExportError(f"the cell {model.config['cell']!r} has no diagnostics to export")


def _held_out_sequences(held_out: Sequence[Array], precision: str, num_items: int) -> list[Array]:
    """Return the sequences on which to measure what the precision costs; required below fp32."""
    if len(held_out):
        return checked_sequences(held_out, num_items)
    if precision != "fp32":
        raise ExportError(f"precision {precision!r} has a cost: give sessions to measure it on (--held-out FILE)")
    return []


def _graph_builder(model: ItemModel, options: Options) -> GraphBuilder:
    model = frozen(model)
    interface = Interface.of(model, options.diagnostics)
    description = {
        "schema_version": schema_version(interface),
        "fingerprint": fingerprint(model),
        "model": model.config,
        "precision": options.precision,
        "states": [asdict(state) for state in interface.states],
        "diagnostics": [asdict(diagnostic) for diagnostic in interface.diagnostics],
    }
    return GraphBuilder(model, interface, options.precision, options.opset, options.file_version, description)


def _checked(
    graphs: GraphBuilder, folder: Path, options: Options, held_out: Sequence[Array], on_stage: OnStage
) -> CheckedBundle:
    """Compare the forms in the folder with the model, and write the vectors, the reports and the manifest there."""
    reference = Reference(graphs.model, graphs.interface)
    forms = load_forms(options.formats, folder, graphs.interface)
    write_vectors(reference, forms.values(), options.allowed, folder / "vectors")
    report = _compare(graphs, reference, forms, options, held_out, on_stage)
    _write_reports(graphs.model, report, folder)
    return CheckedBundle(_write_manifest(graphs, options, report, folder), forms, report)


def _compare(
    graphs: GraphBuilder,
    reference: Reference,
    forms: dict[str, Runner],
    options: Options,
    held_out: Sequence[Array],
    on_stage: OnStage,
) -> Report:
    """Compare the model itself and its forms with the reference, and measure what a lower precision costs."""
    model, interface = graphs.model, graphs.interface
    eager: dict[str, Runner] = {"pytorch": Sequences(model, interface), "pytorch step": StepMethod(model, interface)}
    report = verify(
        reference,
        eager | forms,
        options.allowed,
        partial(on_stage, "parity"),
        strict=options.strict,
        coverage=options.coverage,
    )
    if not held_out:
        return report
    on_stage("accuracy", 0, 1)
    first = next(iter(forms.values()))
    unknown = None if model.vocabulary is None else model.vocabulary.unknown_id
    return replace(report, accuracy=compare(eager["pytorch"], first, interface, held_out, unknown))


def _write_reports(model: ItemModel, report: Report, folder: Path) -> None:
    vocabulary = json.dumps(vocabulary_fields(model), indent=1, ensure_ascii=False) + "\n"
    for name, text in (
        ("vocabulary.json", vocabulary),
        ("parity.json", as_json(report)),
        ("parity.md", as_markdown(report)),
    ):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _write_manifest(graphs: GraphBuilder, options: Options, report: Report, folder: Path) -> Manifest:
    signatures = {STEP: graphs.interface.step, SEQUENCE: graphs.interface.sequence}
    content = {
        **graphs.description,
        "formats": options.formats,
        "opset": graphs.opset,
        "ir_version": graphs.ir_version,
        "graphs": {name: asdict(signature) for name, signature in signatures.items() if (folder / name).exists()},
        "tolerance": {"allowed": options.allowed, "reached": report.reached},
        "versions": {
            "arraylstm": __version__,
            **{name: version(name) for name in ("torch", "onnx")},
            "onnxruntime": onnxruntime.__version__,  # which of its distributions has that name differs
        },
    }
    return write_manifest(folder, content)
