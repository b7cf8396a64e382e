"""`model.pt2`: one step of the model as torch.export writes it, the successor of TorchScript."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch

from arraylstm import ItemModel
from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.eager import arrays, tensors
from arraylstm_export.formats.runner import Runner, StepRunner, as_result
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.graph.step import traceable_step
from arraylstm_export.graph.torch_exporters import quiet_exporter
from arraylstm_export.interface import Interface

FILES = (FILE := "model.pt2",)


def write(graphs: GraphBuilder, folder: Path) -> None:
    """Write the file."""
    write_pt2(graphs.prepared, graphs.interface, folder / FILE)


def load(folder: Path, interface: Interface) -> dict[str, Runner]:
    """Load the file."""
    return {FILE: Pt2Step(folder / FILE, interface)}


def write_pt2(model: ItemModel, interface: Interface, path: Path) -> None:
    """Write one step of a model in eval mode, with nothing about the machine it was written on.

    Positional arguments and results are those of the step graph: items (B) int64 and each state (B, ...) float32 ->
    logits (B, V), next states, diagnostics; B is dynamic, at least 1. Whole sequences are not in the file: torch.export
    unrolls a loop, which would freeze their length.
    """
    step = traceable_step(model, interface)
    with quiet_exporter():
        exported = torch.export.export(step.module, step.example, dynamic_shapes=step.dynamic)
        for node in exported.graph.nodes:
            node.meta.pop("stack_trace", None)  # it names files of this machine
        saved = io.BytesIO()  # when torch writes the file itself and fails, it does not say why
        torch.export.save(exported, saved)
    path.write_bytes(saved.getbuffer())


class Pt2Step(StepRunner):
    """`model.pt2` in torch."""

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        self.module = torch.export.load(path).module()

    @torch.no_grad()
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        return as_result(arrays(self.module(*tensors([items, *state]))), self.interface)
