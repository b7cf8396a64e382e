"""`model.pt2`: one step of the model as torch.export writes it, the successor of TorchScript."""

import io
from pathlib import Path

import torch

from arraylstm import ItemModel
from arraylstm_export.graphs import through_torch
from arraylstm_export.signature import Interface
from arraylstm_export.step import traceable_step


def write_program(model: ItemModel, interface: Interface, path: Path) -> None:
    """Write one step of a model in eval mode as an exported program that says nothing of the machine it was made on.

    Positional arguments and results are the step graph's: items (B) int64 and each state (B, ...) float32 -> logits
    (B, V), next states, diagnostics; B is dynamic, 1 at least. Whole sequences are not in it: torch.export unrolls a loop,
    which would freeze their length.
    """
    step = traceable_step(model, interface)
    with through_torch():
        program = torch.export.export(step.module, step.example, dynamic_shapes=step.dynamic)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names files of this machine
        saved = io.BytesIO()  # into a file torch writes by itself, and does not say why it could not
        torch.export.save(program, saved)
    path.write_bytes(saved.getbuffer())
