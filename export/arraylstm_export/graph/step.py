"""The step graph: torch's export of `ItemModel.step`. Nothing here is about any particular cell."""

import copy

import torch
from onnx import ModelProto
from torch import Tensor, nn

from arraylstm import Cell, ItemModel
from arraylstm_export.graph.tables import tabulated
from arraylstm_export.graph.torch_exporters import Traceable, export_graph
from arraylstm_export.interface import Interface


class Step(nn.Module):
    """`ItemModel.step` with plain arguments, as torch's exporters want it; float32 whatever the model computes in."""

    def __init__(self, model: ItemModel, with_diagnostics: bool) -> None:
        super().__init__()
        self.model = model
        self.with_diagnostics = with_diagnostics

    def forward(self, items: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Consume one item per row: items (B), *state -> logits (B, V), *next state, *diagnostics."""
        dtype = self.model.like().dtype
        logits, following, diagnostics = self.model.step_with_diagnostics(items, [tensor.to(dtype) for tensor in state])
        return tuple(tensor.float() for tensor in (logits, *following, *(diagnostics if self.with_diagnostics else ())))


def prepared(model: ItemModel) -> ItemModel:
    """Return a copy that computes the same with its weights laid out for the fastest step; see `Cell.prepare`."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Cell | ItemModel):
            module.prepare()
    return model


def traceable_step(model: ItemModel, interface: Interface) -> Traceable:
    """Return a model's step for torch's exporters, with a dynamic batch of at least 1."""
    batch = torch.export.Dim("B", min=1)
    state = (torch.zeros(2, *state.shape) for state in interface.states)
    dynamic = ({0: batch}, tuple({0: batch} for _ in interface.states))
    return Traceable(
        Step(model, with_diagnostics=bool(interface.diagnostics)),
        (torch.zeros(2, dtype=torch.int64), *state),
        dynamic,
    )


def step_graph(model: ItemModel, interface: Interface) -> ModelProto:
    """Export one step of a model in eval mode: items (B), state -> logits (B, V), next state, diagnostics.

    Args:
        model: a model, `prepared` if the graph is to be fast.
        interface: what the graph takes and returns.

    Raises:
        ExportError: torch cannot export the step, or froze one of its dimensions.
    """
    step = export_graph("step", traceable_step(model, interface), interface.step)
    return tabulated(step, interface.num_items)
