"""`model.torchscript.pt`: the same methods under the same names for every model, whatever its own `forward` is."""

import io
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from arraylstm import ItemModel
from arraylstm_export.formats.eager import Sequences, StepMethod
from arraylstm_export.formats.runner import Runner
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.graph.torch_exporters import quiet_exporter
from arraylstm_export.interface import Interface

FILES = (FILE := "model.torchscript.pt",)

_OF_THIS_RUN = (".debug_pkl", "/serialization_id")
"""Records that name source files of this machine, and one that is a hash over them."""
_CONSTANTS = re.compile(rb"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)


def write(graphs: GraphBuilder, folder: Path) -> None:
    """Write the file."""
    write_torchscript(graphs.prepared, folder / FILE)


def load(folder: Path, interface: Interface) -> dict[str, Runner]:
    """Load the file, to be run in one call and step by step."""
    scripted = torch.jit.load(folder / FILE)  # type: ignore[no-untyped-call]
    return {FILE: Sequences(scripted, interface), f"{FILE} step": StepMethod(scripted, interface)}


class ScriptedModel(nn.Module):
    """The methods that the file offers; see `arraylstm.ItemModel`."""

    def __init__(self, model: ItemModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, items: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Score whole sequences: items (B, S) -> logits (B, S, V), states."""
        return self.model.unroll(items, state, lengths)

    @torch.jit.export
    def step(self, items: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Consume one item per row: items (B) -> logits (B, V), states."""
        return self.model.step(items, state)

    @torch.jit.export
    def unroll_with_diagnostics(
        self, items: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Score whole sequences as `forward` does, and return the diagnostics (B, S, ...) as well."""
        return self.model.unroll_with_diagnostics(items, state, lengths)

    @torch.jit.export
    def step_with_diagnostics(
        self, items: Tensor, state: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Consume one item per row as `step` does, and return the diagnostics (B, ...) as well."""
        return self.model.step_with_diagnostics(items, state)

    @torch.jit.export
    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the state that sessions start from, for a batch."""
        return self.model.initial_state(batch)


def write_torchscript(model: ItemModel, path: Path) -> None:
    """Write a model as a TorchScript file: the same bytes every time, with nothing about this machine."""
    saved = io.BytesIO()
    with quiet_exporter():
        torch.jit.save(torch.jit.script(ScriptedModel(model)), saved)
    with zipfile.ZipFile(saved) as archive:
        records = {name: archive.read(name) for name in archive.namelist() if not name.endswith(_OF_THIS_RUN)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            ordered = _CONSTANTS.sub(_in_order, content) if name.endswith(".py") else content
            archive.writestr(zipfile.ZipInfo(name), ordered)  # dated 1980, as torch does


def _in_order(constants: re.Match[bytes]) -> bytes:
    """Return declarations of constants in alphabetical order: torch writes them in the random order of a set."""
    return b"".join(sorted(constants[0].splitlines(keepends=True)))
