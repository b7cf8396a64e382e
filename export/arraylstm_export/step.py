"""One step as a module with plain arguments: what every exporter of torch takes."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arraylstm import Cell, ItemModel
from arraylstm_export.signature import Interface


class Step(nn.Module):
    """`ItemModel.step`: items (B), *state -> logits, *next state, *diagnostics; float32 whatever the model computes in."""

    def __init__(self, model: ItemModel, with_diagnostics: bool) -> None:
        super().__init__()
        self.model = model
        self.with_diagnostics = with_diagnostics

    def forward(self, items: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Consume one item per row."""
        dtype = self.model.like().dtype
        logits, following, diagnostics = self.model.step_with_diagnostics(items, [tensor.to(dtype) for tensor in state])
        return tuple(tensor.float() for tensor in (logits, *following, *(diagnostics if self.with_diagnostics else ())))


@dataclass(frozen=True)
class Traceable:
    """A module in eval mode, and what its exporters need to know of its arguments."""

    module: nn.Module
    example: tuple[Tensor, ...]
    dynamic: tuple[Any, ...]
    """The dynamic dimensions of each argument."""


def traceable_step(model: ItemModel, interface: Interface) -> Traceable:
    """Return a model's step, with its weights laid out for speed and the batch dynamic, 1 at least."""
    batch = torch.export.Dim("B", min=1)
    state = (torch.zeros(2, *state.shape) for state in interface.states)
    dynamic = ({0: batch}, tuple({0: batch} for _ in interface.states))
    return Traceable(
        Step(prepared(model), with_diagnostics=bool(interface.diagnostics)),
        (torch.zeros(2, dtype=torch.int64), *state),
        dynamic,
    )


def prepared(model: ItemModel) -> ItemModel:
    """Return a copy that computes the same with its weights laid out for the fastest step; see `Cell.prepare`."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Cell):
            module.prepare()
    return model
