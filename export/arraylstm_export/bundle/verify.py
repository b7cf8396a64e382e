"""Verify a bundle that was written earlier: its files are unchanged, and its forms still compute what they must."""

from functools import partial
from pathlib import Path

from arraylstm import ItemModel
from arraylstm_export.bundle.checked import CheckedBundle, OnStage
from arraylstm_export.bundle.manifest import read_manifest
from arraylstm_export.bundle.model import fingerprint, frozen
from arraylstm_export.bundle.vectors import read_vectors
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.registry import load_forms
from arraylstm_export.parity.checks import replay, verify
from arraylstm_export.parity.reference import Reference
from arraylstm_export.parity.report import Report
from arraylstm_export.parity.scenarios import Coverage
from arraylstm_export.runtime import require_one_runtime


def verify_bundle(
    directory: str | Path,
    model: ItemModel | None = None,
    tolerance: float | None = None,
    strict: bool = False,
    coverage: Coverage = Coverage(),
    on_stage: OnStage = lambda name, done, total: None,
) -> Report:
    """Check that a bundle's files are unchanged, and compare its forms with the model again.

    Args:
        directory: the bundle.
        model: the model that it was made from; without it the forms are compared with the bundle's own test vectors.
        tolerance: largest difference that passes; None is the tolerance that the bundle was made with.
        strict: see `Options`.
        coverage: see `Options`.
        on_stage: called as the comparison proceeds.

    Raises:
        ExportError: onnxruntime is installed twice; there is no bundle, one of its files was changed, it was made from
            another model, or one of its forms cannot be run.
    """
    return check_bundle(directory, model, tolerance, strict, coverage, on_stage).report


def check_bundle(
    directory: str | Path,
    model: ItemModel | None,
    tolerance: float | None,
    strict: bool,
    coverage: Coverage,
    on_stage: OnStage,
) -> CheckedBundle:
    """Verify a bundle as `verify_bundle` does, and return it with its forms loaded."""
    require_one_runtime()
    folder = Path(directory)
    manifest = read_manifest(folder)
    changes = manifest.changes(folder)
    if changes:
        raise ExportError(f"{folder}: was changed since it was written: {'; '.join(changes)}")
    allowed = manifest.allowed if tolerance is None else tolerance
    interface = manifest.interface
    forms = load_forms(manifest.formats, folder, interface)
    if model is None:
        report = replay(read_vectors(folder / "vectors", interface), interface, forms, allowed)
        return CheckedBundle(manifest, forms, report)
    model = frozen(model)
    if fingerprint(model) != manifest.fingerprint:
        raise ExportError(f"{folder}: was made from another model than this one: their fingerprints differ")
    reference = Reference(model, interface)
    report = verify(reference, forms, allowed, partial(on_stage, "parity"), strict=strict, coverage=coverage)
    return CheckedBundle(manifest, forms, report)
