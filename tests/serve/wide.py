"""A bundle of many items without labels, so that an answer can be long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import numpy_helper

from .bundles import H, signature, step_model, write_bundle, write_manifest


def write_wide_bundle(path: Path, items: int) -> Path:
    """Write a bundle like that of `bundles`, with so many items; many of them have the same probability."""
    model, graph = step_model(), signature()
    rng = np.random.default_rng(3)
    shapes = {"E": (items, H), "W": (H, items), "b": (items,)}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            values = rng.integers(-20, 20, shapes[tensor.name]).astype(np.float32) / 10
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = items
    graph["outputs"][0]["shape"][1] = items
    write_bundle(path, labels=None, model=model, graphs={"step.onnx": graph})
    text = (path / "manifest.json").read_text().replace('"num_items": 7', f'"num_items": {items}')
    write_manifest(path, text.encode())
    return path
