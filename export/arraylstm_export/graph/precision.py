"""The numbers that a graph computes with: a row in `PRECISIONS` is all that the rest of the exporter needs.

| precision | computes with                                     | for                                           |
|-----------|---------------------------------------------------|-----------------------------------------------|
| fp32      | float32                                           | everything                                    |
| fp16      | float16                                           | accelerators that are fast at it              |
| int8      | float32, with large weights and their inputs int8 | CPUs, where large products take most of the time |
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from onnx import ModelProto

from arraylstm import ItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.graph.int8 import quantize
from arraylstm_export.graph.step import step_graph
from arraylstm_export.interface import Interface

_LARGEST_HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Precision:
    """A way to compute a step; its inputs and outputs are float32 in every precision."""

    step: Callable[[ItemModel, Interface], ModelProto]
    """Make the step graph of a float32 model in eval mode."""
    tolerance: float
    """Largest difference from float64 that passes by default."""


def half_step_graph(model: ItemModel, interface: Interface) -> ModelProto:
    """Export one step of a model in eval mode that computes in float16.

    Raises:
        ExportError: a weight is too large for float16.
    """
    for name, weight in model.state_dict().items():
        if (weight.abs() > _LARGEST_HALF).any():
            raise ExportError(
                f"fp16: {name} has a weight of {weight.abs().max():g}; float16 goes up to {_LARGEST_HALF:g}"
            )
    return step_graph(copy.deepcopy(model).half(), interface)


def int8_step_graph(model: ItemModel, interface: Interface) -> ModelProto:
    """Export one step of a model in eval mode whose large weights are int8; see `quantize`."""
    return quantize(step_graph(model, interface))


PRECISIONS = {
    "fp32": Precision(step_graph, 1e-5),
    "fp16": Precision(half_step_graph, 2e-2),
    "int8": Precision(int8_step_graph, 0.2),
}
