"""The step graph in float16, for accelerators that compute in it; state and scores stay float32 outside."""

import copy

import torch
from onnx import ModelProto
from torch import Tensor, nn

from arraylstm import ItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.graphs import export_graph
from arraylstm_export.signature import Interface

_LARGEST = torch.finfo(torch.float16).max


class _HalfStep(nn.Module):
    """A step whose weights and arithmetic are float16 between a state and results of float32."""

    def __init__(self, model: ItemModel, traced: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()
        self.traced = traced

    def forward(self, items: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, following, traces = self.model.step_traced(items, [tensor.half() for tensor in state])
        return tuple(tensor.float() for tensor in (logits, *following, *(traces if self.traced else ())))


def half_step(model: ItemModel, interface: Interface) -> ModelProto:
    """Export one step of a model in eval mode, computed in float16; its signature is `step_graph`'s.

    Raises:
        ExportError: a weight is too large for float16, or the exported graph's inputs and outputs are not the
            promised ones.
    """
    _check_range(model)
    batch = torch.export.Dim("B", min=1)
    example = (torch.zeros(2, dtype=torch.int64), *model.initial_state(2))
    dynamic = ({0: batch}, tuple({0: batch} for _ in interface.states))
    return export_graph("step", _HalfStep(model, bool(interface.traces)), example, dynamic, interface.step)


def _check_range(model: ItemModel) -> None:
    for name, weight in model.state_dict().items():
        if (weight.abs() > _LARGEST).any():
            raise ExportError(f"{name} holds {weight.abs().max():g}; float16 ends at {_LARGEST:g}")
