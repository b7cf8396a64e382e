"""What `arraylstm-export inspect` tells of a bundle, or of a graph by itself, whose metadata say much of the same."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from rich.filesize import decimal
from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.errors import ExportError
from arraylstm_export.manifest import read_manifest
from arraylstm_export.signature import METADATA


def content_of(path: Path) -> dict[str, Any]:
    """Return a bundle's manifest, or as much of one as a graph by itself carries.

    Raises:
        ExportError: it is neither.
    """
    return _content_of_graph(path) if path.is_file() else read_manifest(path).content


def _content_of_graph(path: Path) -> dict[str, Any]:
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
        own = {prop.key.removeprefix(METADATA): prop.value for prop in model.metadata_props}
        signature = {kind: json.loads(own[kind]) for kind in ("inputs", "outputs")}
        return {
            "model": json.loads(own["model"]),
            "fingerprint": own["fingerprint"],
            "precision": own["precision"],
            "opset": model.opset_import[0].version,
            "ir_version": model.ir_version,
            "graphs": {path.name: signature},
            "files": {},
        }
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # what a file may hold to break the reading of it has no end
        raise ExportError(f"{path}: is no graph of arraylstm-export") from None


def description(content: Mapping[str, Any]) -> Iterator[Table]:
    """Yield tables of a model, of the tensors of its graphs, and of the files they are in."""
    yield _facts(content)
    for file, signature in content["graphs"].items():
        table = make_table(file, "name", "type", "shape")
        for kind in ("inputs", "outputs"):
            for tensor in signature[kind]:
                table.add_row(kind[:-1], tensor["name"], tensor["dtype"], f"[{', '.join(map(str, tensor['shape']))}]")
        yield table
    if content["files"]:
        yield _files(content["files"])


def _facts(content: Mapping[str, Any]) -> Table:
    facts = make_table("", "")
    facts.show_header = False
    facts.columns[1].no_wrap = False
    rows = {
        **content["model"],
        "fingerprint": content["fingerprint"],
        "precision": content["precision"],
        "ONNX": f"opset {content['opset']}, IR version {content['ir_version']}",
    }
    if "tolerance" in content:
        reached, allowed = content["tolerance"]["reached"], content["tolerance"]["allowed"]
        rows["parity"] = f"largest difference {reached:.1e}, {allowed:g} allowed"
    if "versions" in content:
        rows["written by"] = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    for name, value in rows.items():
        facts.add_row(name, str(value))
    return facts


def _files(entries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row for every file, and one for all below a folder."""
    sizes: dict[str, list[int]] = {}
    for name, entry in entries.items():
        top, below, _ = name.partition("/")
        sizes.setdefault(top + below, []).append(entry["bytes"])
    table = make_table("file", "size", "files")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, found in sizes.items():
        table.add_row(name, decimal(sum(found)), str(len(found)) if name.endswith("/") else "")
    return table
