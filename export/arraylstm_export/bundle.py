"""The bundle: a folder with everything an embedding or a server needs, written whole or not at all."""

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto

from arraylstm import ItemModel
from arraylstm_export import report
from arraylstm_export.errors import ExportError
from arraylstm_export.graphs import IR_VERSION, OPSET, step_graph
from arraylstm_export.native import fastest_sequence_graph
from arraylstm_export.parity import Report, verify
from arraylstm_export.runners import Runner, SequenceGraph, Sequences, StepGraph, StepMethod
from arraylstm_export.signature import Interface, Signature
from arraylstm_export.torchscript import write_torchscript
from arraylstm_export.vectors import write_vectors

SCHEMA_VERSION = 1
STEP, SEQUENCE, TORCHSCRIPT = "step.onnx", "sequence.onnx", "model.torchscript.pt"
MANIFEST, MANIFEST_HASH = "manifest.json", "manifest.sha256"

OnStage = Callable[[str, int, int], None]
"""Told a stage's name, the units of it that are done, and their total."""


def export(
    model: ItemModel,
    directory: str | Path,
    tolerance: float = 1e-5,
    traces: bool = False,
    on_stage: OnStage = lambda name, done, total: None,
) -> Report:
    """Write the model as a bundle and prove its graphs equal to the model.

    A bundle that already stands under `directory` is replaced, but only by one that passed.

    Args:
        model: the model; it is exported in eval mode and float32, and is itself left as it is.
        directory: folder to create.
        tolerance: largest difference from float64 eager PyTorch that passes.
        traces: give the graphs what the cells show of themselves (a Markov cell's `q_z`) as further outputs.
        on_stage: told of progress.

    Returns:
        The parity report. Unless it passed, nothing was left under `directory`.

    Raises:
        ExportError: the folder holds something else than a bundle, or cannot be written; the model has no traces to
            export, or starts from another state than zeros.
    """
    target = Path(directory).resolve()
    _check_target(target)
    if not 0 < tolerance < float("inf"):
        raise ExportError(f"tolerance must be a number above 0, got {tolerance!r}")
    _check_model(model, traces)
    model = _frozen(model)
    interface = Interface.of(model, traces)
    try:
        with _scratch_beside(target) as folder:
            description = _description(model, interface)
            _write_graphs(model, interface, folder, description, on_stage)
            _write_vocabulary(model, folder)
            write_vectors(model, interface, folder / "vectors")
            parity = verify(
                model,
                interface,
                forms(model, interface, folder),
                tolerance,
                lambda done, total: on_stage("parity", done, total),
            )
            _write(folder / "parity.json", report.as_json(parity))
            _write(folder / "parity.md", report.as_markdown(parity))
            _write_manifest(interface, folder, description, tolerance, parity)
            if parity.passed:
                _put_in_place(folder, target)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}") from None
    return parity


def forms(model: ItemModel, interface: Interface, folder: Path) -> dict[str, Runner]:
    """Return a runner for every form of the model that the folder holds, and for the model itself."""
    scripted = torch.jit.load(folder / TORCHSCRIPT)  # type: ignore[no-untyped-call]
    return {
        "pytorch": Sequences(model, interface),
        "pytorch step": StepMethod(model, interface),
        STEP: StepGraph(folder / STEP, interface),
        SEQUENCE: SequenceGraph(folder / SEQUENCE, interface),
        "torchscript": Sequences(scripted, interface),
        "torchscript step": StepMethod(scripted, interface),
    }


def fingerprint(model: ItemModel) -> str:
    """Return `sha256:<hex>` over configuration, vocabulary and weights."""
    digest = hashlib.sha256(json.dumps([model.config, _vocabulary(model)], sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


# -- parts ------------------------------------------------------------------------------------------------------


def _check_model(model: ItemModel, traces: bool) -> None:
    if any(tensor.any() for tensor in model.initial_state(1)):
        raise ExportError("the model starts from another state than zeros, which a bundle's users would not know")
    if traces and not model.trace_names:
        raise ExportError(f"the cell {model.config['cell']!r} has no traces to export")


def _frozen(model: ItemModel) -> ItemModel:
    """Return a copy on the CPU in eval mode and float32."""
    return copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)


def _description(model: ItemModel, interface: Interface) -> dict[str, Any]:
    """Return what the manifest and every graph's own metadata say of the model."""
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint(model),
        "model": model.config,
        "states": [asdict(state) for state in interface.states],
    }


def _write_graphs(
    model: ItemModel, interface: Interface, folder: Path, description: dict[str, Any], on_stage: OnStage
) -> None:
    on_stage(STEP, 0, 1)
    step = step_graph(model, interface)
    on_stage(SEQUENCE, 0, 1)
    sequence = fastest_sequence_graph(model, step, interface)
    for name, graph, signature in ((STEP, step, interface.step), (SEQUENCE, sequence, interface.sequence)):
        _describe(graph, description, signature)
        onnx.save(graph, folder / name)
    on_stage(TORCHSCRIPT, 0, 1)
    write_torchscript(model, folder / TORCHSCRIPT)


def _describe(graph: ModelProto, description: dict[str, Any], signature: Signature) -> None:
    """Write into the graph's own metadata what the manifest says of it, so that a lone file explains itself."""
    for name, value in {**description, **asdict(signature)}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        graph.metadata_props.add(key=f"arraylstm.{name}", value=text)


def _write_vocabulary(model: ItemModel, folder: Path) -> None:
    _write(folder / "vocabulary.json", json.dumps(_vocabulary(model), indent=1, ensure_ascii=False) + "\n")


def _vocabulary(model: ItemModel) -> dict[str, Any]:
    if model.vocabulary is None:
        return {"labels": None, "unknown": None}
    return model.vocabulary.fields()


def _write_manifest(
    interface: Interface, folder: Path, description: dict[str, Any], tolerance: float, parity: Report
) -> None:
    manifest = {
        **description,
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "graphs": {
            STEP: asdict(interface.step),
            SEQUENCE: asdict(interface.sequence),
        },
        "tolerance": {"allowed": tolerance, "reached": parity.reached},
        "versions": {name: version(name) for name in ("arraylstm", "torch", "onnx", "onnxruntime")},
        "files": {name: _fingerprint_file(folder / name) for name in _files(folder)},
    }
    _write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    _write(folder / MANIFEST_HASH, f"{_fingerprint_file(folder / MANIFEST)['sha256']}  {MANIFEST}\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _fingerprint_file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


# -- all or nothing -----------------------------------------------------------------------------------------------


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise ExportError(f"{target}: there is no folder {str(target.parent)!r} to write it in")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: is a file; name a folder")
    if target.is_dir() and set(_files(target)) - _files_of_bundle(target):
        raise ExportError(f"{target}: is a folder with other content than a bundle's; name a new or an empty folder")


def _files_of_bundle(folder: Path) -> set[str]:
    """Return the files that a bundle in this folder would account for; none where there is no bundle."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {MANIFEST, MANIFEST_HASH, *manifest["files"]} if "fingerprint" in manifest else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """Yield a folder on the target's file system, removed at the end unless it was put in place."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(folder: Path, target: Path) -> None:
    """Give the finished folder the target's name; an older bundle goes only when the new one stands."""
    folder.chmod(0o755)
    if not target.exists():
        folder.replace(target)
        return
    with _scratch_beside(target) as attic:
        old = target.replace(attic / "old")
        try:
            folder.replace(target)
        except BaseException:
            old.replace(target)
            raise
