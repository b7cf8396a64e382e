"""A tiny recurrent bundle written with onnx.helper, and the same mathematics in float64 NumPy.

h' = tanh(E[item] + h U + m[0]),  m' = m / 2 + G h',  logits = h' W + b
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LABELS: list[str | int] = ["a", "b", "c", "d", "e", 5, "5"]
V, H, LANES = len(LABELS), 5, 2
FINGERPRINT = "sha256:" + "0123456789abcdef" * 4
STATES = [
    {"name": "h", "shape": [H], "dtype": "float32", "initial": "zeros"},
    {"name": "m", "shape": [LANES, H], "dtype": "float32", "initial": "zeros"},
]

Array = NDArray[np.float64]


def _weights() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(7)
    shapes = {"E": (V, H), "U": (H, H), "G": (LANES, 1), "W": (H, V), "b": (V,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


WEIGHTS = _weights()


@dataclass
class Reference:
    """The model in float64, one session at a time."""

    h: Array = field(default_factory=lambda: np.zeros(H))
    m: Array = field(default_factory=lambda: np.zeros((LANES, H)))

    def step(self, item: int) -> Array:
        """Consume an item id; the probabilities (V,) of what comes next."""
        w = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
        self.h = np.tanh(w["E"][item] + self.h @ w["U"] + self.m[0])
        self.m = self.m / 2 + w["G"] * self.h
        weights = np.exp(self.h @ w["W"] + w["b"])
        return weights / weights.sum()


def probabilities(items: list[str | int]) -> Array:
    """The probabilities (S, V) after each of a session's items."""
    model = Reference()
    return np.array([model.step(index_of(item)) for item in items])


def index_of(label: str | int) -> int:
    """A label's id; 5 is not "5"."""
    return next(index for index, other in enumerate(LABELS) if (type(other), other) == (type(label), label))


def expected_predictions(items: list[str | int], top_k: int = 10) -> list[tuple[str | int, float]]:
    """Labels and probabilities after a session's items, most likely first."""
    row = probabilities(items)[-1]
    return [(LABELS[index], float(row[index])) for index in np.argsort(-row, kind="stable")[:top_k]]


def expected_observed(items: list[str | int], sent: int) -> list[tuple[float | None, int | None]]:
    """Probability and rank, before it was consumed, of each of a session's last `sent` items."""
    rows = probabilities(items)
    seen: list[tuple[float | None, int | None]] = [(None, None)]
    for row, item in zip(rows, items[1:], strict=False):
        chance = row[index_of(item)]
        seen.append((float(chance), 1 + int((row > chance).sum())))
    return seen[-sent:]


def step_model(**metadata: str) -> onnx.ModelProto:
    """The model as an ONNX step graph."""

    def tensor(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def states(prefix: str) -> list[onnx.ValueInfoProto]:
        return [tensor(f"{prefix}{s['name']}", TensorProto.FLOAT, "B", *s["shape"]) for s in STATES]

    constants = WEIGHTS | {"half": np.float32(0.5), "zero": np.int64(0), "axis": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Gather", ["E", "items"], ["embedded"]),
        helper.make_node("MatMul", ["state_h", "U"], ["recurrent"]),
        helper.make_node("Gather", ["state_m", "zero"], ["lane"], axis=1),
        helper.make_node("Add", ["embedded", "recurrent"], ["driven"]),
        helper.make_node("Add", ["driven", "lane"], ["summed"]),
        helper.make_node("Tanh", ["summed"], ["next_state_h"]),
        helper.make_node("Unsqueeze", ["next_state_h", "axis"], ["spread"]),
        helper.make_node("Mul", ["state_m", "half"], ["faded"]),
        helper.make_node("Mul", ["G", "spread"], ["gained"]),
        helper.make_node("Add", ["faded", "gained"], ["next_state_m"]),
        helper.make_node("MatMul", ["next_state_h", "W"], ["projected"]),
        helper.make_node("Add", ["projected", "b"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "step",
        [tensor("items", TensorProto.INT64, "B"), *states("state_")],
        [tensor("logits", TensorProto.FLOAT, "B", V), *states("next_state_")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    stamped = {"arraylstm.fingerprint": FINGERPRINT, "arraylstm.states": json.dumps(STATES)}
    helper.set_model_props(model, stamped | metadata)
    return model


def signature() -> dict[str, Any]:
    """The step graph's signature as the manifest states it."""

    def tensor(name: str, dtype: str, *shape: str | int) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": list(shape)}

    def states(prefix: str) -> list[dict[str, Any]]:
        return [tensor(f"{prefix}{s['name']}", "float32", "B", *s["shape"]) for s in STATES]

    return {
        "inputs": [tensor("items", "int64", "B"), *states("state_")],
        "outputs": [tensor("logits", "float32", "B", V), *states("next_state_")],
    }


def write_bundle(
    path: Path,
    *,
    labels: list[str | int] | None = LABELS,
    unknown: str | int | None = None,
    model: onnx.ModelProto | None = None,
    **changes: Any,
) -> Path:
    """Write a bundle whose hashes are right, its manifest with some fields changed."""
    path.mkdir()
    (path / "step.onnx").write_bytes((model or step_model()).SerializeToString())
    (path / "vocabulary.json").write_text(json.dumps({"labels": labels, "unknown": unknown}))
    files = {file.name: describe(file) for file in sorted(path.iterdir())}
    manifest = {
        "schema_version": 1,
        "fingerprint": FINGERPRINT,
        "model": {"cell": "tiny", "num_items": V, "hidden_size": H},
        "opset": 18,
        "ir_version": 10,
        "states": STATES,
        "graphs": {"step.onnx": signature()},
        "files": files,
        "versions": {"onnx": onnx.__version__},
        "tolerance": {"allowed": 1e-5, "reached": 2e-7},
    }
    write_manifest(path, json.dumps(manifest | changes).encode())
    return path


def write_manifest(path: Path, content: bytes) -> None:
    """Write a bundle's manifest and the line that vouches for it."""
    (path / "manifest.json").write_bytes(content)
    (path / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def describe(file: Path) -> dict[str, Any]:
    """A file's entry in the manifest."""
    content = file.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
