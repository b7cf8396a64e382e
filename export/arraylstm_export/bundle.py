"""The bundle: a folder with everything an embedding or a server needs, written whole or not at all."""

import copy
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto

from arraylstm import NextItemModel
from arraylstm_export import graphs, report
from arraylstm_export.errors import ExportError
from arraylstm_export.parity import Report, verify
from arraylstm_export.runners import Runner, SequenceGraph, StepGraph, StepMethod, Whole
from arraylstm_export.signature import Signature, sequence_signature, states_of, step_signature
from arraylstm_export.vectors import write_vectors

SCHEMA_VERSION = 1
STEP, SEQUENCE, TORCHSCRIPT = "step.onnx", "sequence.onnx", "model.torchscript.pt"
MANIFEST, MANIFEST_HASH = "manifest.json", "manifest.sha256"

OnStage = Callable[[str, int, int], None]
"""Told a stage's name, the units of it that are done, and their total."""


def export(
    model: NextItemModel,
    directory: str | Path,
    tolerance: float = 1e-5,
    on_stage: OnStage = lambda name, done, total: None,
) -> Report:
    """Write the model as a bundle and prove its graphs equal to the model.

    A bundle that already stands under `directory` is replaced, but only by one that passed.

    Args:
        model: the model; it is exported in eval mode and float32, and is itself left as it is.
        directory: folder to create.
        tolerance: largest difference from float64 eager PyTorch that passes.
        on_stage: told of progress.

    Returns:
        The parity report. Unless it passed, nothing was left under `directory`.

    Raises:
        ExportError: the folder holds something else than a bundle, or cannot be written.
    """
    target = Path(directory).resolve()
    _check_target(target)
    if not 0 < tolerance < float("inf"):
        raise ExportError(f"tolerance must be a number above 0, got {tolerance!r}")
    model = _frozen(model)
    try:
        with _scratch_beside(target) as folder:
            description = _description(model)
            _write_graphs(model, folder, description, on_stage)
            _write_vocabulary(model, folder)
            write_vectors(model, folder / "vectors")
            parity = verify(model, forms(model, folder), tolerance, lambda done, total: on_stage("parity", done, total))
            _write(folder / "parity.json", report.as_json(parity))
            _write(folder / "parity.md", report.as_markdown(parity))
            _write_manifest(model, folder, description, tolerance, parity)
            if parity.passed:
                _put_in_place(folder, target)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}") from None
    return parity


def forms(model: NextItemModel, folder: Path) -> dict[str, Runner]:
    """Return a runner for every form of the model that the folder holds, and for the model itself."""
    scripted = torch.jit.load(folder / TORCHSCRIPT)  # type: ignore[no-untyped-call]
    states = states_of(model)
    return {
        "pytorch": Whole(model),
        "pytorch step": StepMethod(model, model.num_items),
        STEP: StepGraph(folder / STEP, states, model.num_items),
        SEQUENCE: SequenceGraph(folder / SEQUENCE, states),
        "torchscript": Whole(scripted),
        "torchscript step": StepMethod(scripted, model.num_items),
    }


def fingerprint(model: NextItemModel) -> str:
    """Return `sha256:<hex>` over configuration, vocabulary and weights."""
    digest = hashlib.sha256(json.dumps([model.config, _vocabulary(model)], sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


# -- parts ------------------------------------------------------------------------------------------------------


def _frozen(model: NextItemModel) -> NextItemModel:
    """Return a copy on the CPU in eval mode and float32."""
    return copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)


def _description(model: NextItemModel) -> dict[str, Any]:
    """Return what the manifest and every graph's own metadata say of the model."""
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint(model),
        "model": model.config,
        "states": [asdict(state) for state in states_of(model)],
    }


def _write_graphs(model: NextItemModel, folder: Path, description: dict[str, Any], on_stage: OnStage) -> None:
    states = states_of(model)
    on_stage(STEP, 0, 1)
    step = graphs.step_graph(model)
    on_stage(SEQUENCE, 0, 1)
    sequence = graphs.sequence_graph(step, states, model.num_items)
    for name, graph, signature in (
        (STEP, step, step_signature(states, model.num_items)),
        (SEQUENCE, sequence, sequence_signature(states, model.num_items)),
    ):
        _describe(graph, description, signature)
        onnx.save(graph, folder / name)
    on_stage(TORCHSCRIPT, 0, 1)
    with graphs.quiet():
        torch.jit.script(model).save(str(folder / TORCHSCRIPT))  # type: ignore[no-untyped-call]
    _drop_debug_records(folder / TORCHSCRIPT)


def _drop_debug_records(path: Path) -> None:
    """Rewrite a TorchScript archive without the records that tell of the machine and the source it was made from."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".debug_pkl")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, as torch itself does


def _describe(graph: ModelProto, description: dict[str, Any], signature: Signature) -> None:
    """Write into the graph's own metadata what the manifest says of it, so that a lone file explains itself."""
    for name, value in {**description, **asdict(signature)}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        graph.metadata_props.add(key=f"arraylstm.{name}", value=text)


def _write_vocabulary(model: NextItemModel, folder: Path) -> None:
    _write(folder / "vocabulary.json", json.dumps(_vocabulary(model), indent=1, ensure_ascii=False) + "\n")


def _vocabulary(model: NextItemModel) -> dict[str, Any]:
    if model.vocabulary is None:
        return {"labels": None, "unknown": None}
    return model.vocabulary.fields()


def _write_manifest(
    model: NextItemModel, folder: Path, description: dict[str, Any], tolerance: float, parity: Report
) -> None:
    states = states_of(model)
    manifest = {
        **description,
        "opset": graphs.OPSET,
        "ir_version": graphs.IR_VERSION,
        "graphs": {
            STEP: asdict(step_signature(states, model.num_items)),
            SEQUENCE: asdict(sequence_signature(states, model.num_items)),
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
