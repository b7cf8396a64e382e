"""The bundle: a folder with everything an embedding or a server needs, proven before it gets its name."""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from arraylstm import ItemModel, __version__
from arraylstm_export import report
from arraylstm_export.accuracy import compare, telling
from arraylstm_export.errors import ExportError
from arraylstm_export.folder import check_target, put_in_place, scratch_beside
from arraylstm_export.formats import FORMATS, SEQUENCE, STEP
from arraylstm_export.manifest import SCHEMA_VERSION, read_manifest, write_manifest
from arraylstm_export.options import Options
from arraylstm_export.parity import Report, replay, verify
from arraylstm_export.reference import Reference
from arraylstm_export.runners import Array, Runner, Sequences, StepMethod
from arraylstm_export.scenarios import Coverage
from arraylstm_export.signature import Interface
from arraylstm_export.source import Source
from arraylstm_export.vectors import read_vectors, write_vectors

OnStage = Callable[[str, int, int], None]
"""Told a stage's name, the units of it that are done, and their total."""


def export(
    model: ItemModel,
    directory: str | Path,
    options: Options = Options(),
    held_out: Sequence[Array] = (),
    on_stage: OnStage = lambda name, done, total: None,
) -> Report:
    """Write the model as a bundle and prove its forms equal to the model.

    A bundle that already stands under `directory` is replaced, but only by one that passed.

    Args:
        model: the model; it is exported in eval mode and float32, and is itself left as it is.
        directory: folder to create.
        options: formats, precision, versions, and what passes.
        held_out: sequences of item ids (S) int64 that the model was not trained on, on which to measure what a
            precision below fp32 costs.
        on_stage: told of progress.

    Returns:
        The parity report. Unless it passed, nothing was left under `directory`.

    Raises:
        ExportError: the folder holds something else than a bundle, or cannot be written; the model has no diagnostics to
            export, starts from another state than zeros, or cannot be written in a format or precision; `held_out`
            holds other than items, or no two in a row.
    """
    target = Path(directory).resolve()
    _check_model(model, options.diagnostics)
    sequences = _telling(held_out, options.precision, model.num_items)
    try:
        check_target(target)
        source = _source(model, options)
        with scratch_beside(target) as folder:
            for name in options.formats:
                on_stage(f"writing {name}", 0, 1)
                FORMATS[name].write(source, folder)
            reference = Reference(source.model, source.interface)
            written = _forms(options.formats, folder, source.interface)
            write_vectors(reference, written.values(), options.allowed, folder / "vectors")
            parity = _prove(source, reference, written, options, sequences, on_stage)
            _write_reports(folder, source, parity)
            _write_manifest(source, folder, options, parity)
            if parity.passed:
                put_in_place(folder, target)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}") from None
    return parity


def verify_bundle(
    directory: str | Path,
    model: ItemModel | None = None,
    tolerance: float | None = None,
    strict: bool = False,
    coverage: Coverage = Coverage(),
    on_stage: OnStage = lambda name, done, total: None,
) -> Report:
    """Check that a bundle is as it was written, and prove its forms anew.

    Args:
        directory: the bundle.
        model: the model that it was made from; without it the forms are held to the bundle's own test vectors.
        tolerance: largest difference that passes; None is what the bundle was made with.
        strict: see `Options`.
        coverage: see `Options`.
        on_stage: told of progress.

    Raises:
        ExportError: there is no bundle, a file of it was changed, it was made from another model, or a form of it
            cannot be run.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    changed = manifest.changes()
    if changed:
        raise ExportError(f"{folder}: is not as it was written: {'; '.join(changed)}")
    allowed = manifest.allowed if tolerance is None else tolerance
    interface = manifest.interface
    found = _forms(manifest.formats, folder, interface)
    if model is None:
        return replay(read_vectors(folder / "vectors", interface), interface, found, allowed)
    model = _frozen(model)
    if fingerprint(model) != manifest.fingerprint:
        raise ExportError(f"{folder}: was made from another model than this: their fingerprints differ")
    reference = Reference(model, interface)
    return verify(reference, found, allowed, partial(on_stage, "parity"), strict=strict, coverage=coverage)


def fingerprint(model: ItemModel) -> str:
    """Return `sha256:<hex>` over configuration, vocabulary and weights."""
    digest = hashlib.sha256(json.dumps([model.config, _vocabulary(model)], sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


# -- parts ------------------------------------------------------------------------------------------------------


def _check_model(model: ItemModel, diagnostics: bool) -> None:
    if any(tensor.any() for tensor in model.initial_state(1)):
        raise ExportError("the model starts from another state than zeros, which a bundle's users would not know")
    if diagnostics and not model.diagnostic_names:
        raise ExportError(f"the cell {model.config['cell']!r} has no diagnostics to export")


def _telling(held_out: Sequence[Array], precision: str, num_items: int) -> list[Array]:
    """Return the sequences to measure the precision's cost on; none where none are given, which fp32 alone allows."""
    if len(held_out):
        return telling(held_out, num_items)
    if precision != "fp32":
        raise ExportError(f"precision {precision!r} has a cost: give sessions to measure it on (--held-out FILE)")
    return []


def _frozen(model: ItemModel) -> ItemModel:
    """Return a copy on the CPU in eval mode and float32."""
    return copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)


def _source(model: ItemModel, options: Options) -> Source:
    frozen = _frozen(model)
    interface = Interface.of(frozen, options.diagnostics)
    description = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint(frozen),
        "model": frozen.config,
        "precision": options.precision,
        "states": [asdict(state) for state in interface.states],
        "diagnostics": [asdict(diagnostic) for diagnostic in interface.diagnostics],
    }
    return Source(frozen, interface, options.precision, options.opset, options.file_version, description)


def _forms(formats: Sequence[str], folder: Path, interface: Interface) -> dict[str, Runner]:
    """Return a runner for every form of the model that the folder holds."""
    return {form: run for name in formats for form, run in FORMATS[name].forms(folder, interface).items()}


def _prove(
    source: Source,
    reference: Reference,
    written: dict[str, Runner],
    options: Options,
    held_out: Sequence[Array],
    on_stage: OnStage,
) -> Report:
    """Return how the forms that were written compare with the model, and what a lower precision costs."""
    model, interface = source.model, source.interface
    eager: dict[str, Runner] = {"pytorch": Sequences(model, interface), "pytorch step": StepMethod(model, interface)}
    parity = verify(
        reference,
        eager | written,
        options.allowed,
        partial(on_stage, "parity"),
        strict=options.strict,
        coverage=options.coverage,
    )
    if not held_out:
        return parity
    on_stage("accuracy", 0, 1)
    cheaper = next(iter(written.values()))
    return replace(parity, accuracy=compare(eager["pytorch"], cheaper, interface, held_out))


def _vocabulary(model: ItemModel) -> dict[str, Any]:
    if model.vocabulary is None:
        return {"labels": None, "unknown": None}
    return model.vocabulary.fields()


def _write_reports(folder: Path, source: Source, parity: Report) -> None:
    vocabulary = json.dumps(_vocabulary(source.model), indent=1, ensure_ascii=False) + "\n"
    for name, text in (
        ("vocabulary.json", vocabulary),
        ("parity.json", report.as_json(parity)),
        ("parity.md", report.as_markdown(parity)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _write_manifest(source: Source, folder: Path, options: Options, parity: Report) -> None:
    signatures = {STEP: source.interface.step, SEQUENCE: source.interface.sequence}
    content = {
        **source.description,
        "formats": options.formats,
        "opset": source.opset,
        "ir_version": source.ir_version,
        "graphs": {name: asdict(signature) for name, signature in signatures.items() if (folder / name).exists()},
        "tolerance": {"allowed": options.allowed, "reached": parity.reached},
        "versions": {"arraylstm": __version__} | {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
    }
    write_manifest(folder, content)
