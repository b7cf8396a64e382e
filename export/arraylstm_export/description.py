"""What `arraylstm-export inspect` tells of a bundle, or of a graph by itself, whose metadata say much of the same."""

import json
from collections.abc import Mapping
from itertools import starmap
from pathlib import Path

import onnx
from rich.filesize import decimal
from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.errors import ExportError
from arraylstm_export.manifest import Manifest, read_manifest, signature_from
from arraylstm_export.signature import METADATA, Signature


def description(path: Path) -> list[Table]:
    """Return tables of a bundle's model, of the tensors of its graphs, and of the files they are in.

    Of a graph by itself there are as many as it carries.

    Raises:
        ExportError: it is neither.
    """
    return _of_graph(path) if path.is_file() else _of_bundle(read_manifest(path))


def _of_bundle(manifest: Manifest) -> list[Table]:
    opset, ir_version = manifest.onnx_versions
    facts = {
        **manifest.model,
        "fingerprint": manifest.fingerprint,
        "precision": manifest.precision,
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
            "ONNX": _versions(model.opset_import[0].version, model.ir_version),
        }
        signature = signature_from({kind: json.loads(own[kind]) for kind in ("inputs", "outputs")})
        return [_facts(facts), _tensors(path.name, signature)]
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # what a file may hold to break the reading of it has no end
        raise ExportError(f"{path}: is no graph of arraylstm-export") from None


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
    """Return a row for every file, and one for all below a folder."""
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
