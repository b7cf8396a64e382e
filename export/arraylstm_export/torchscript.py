"""The TorchScript file: the same methods under the same names for every model, whatever its own `forward` is."""

import io
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from arraylstm import ItemModel
from arraylstm_export.graphs import through_torch

_OF_THIS_RUN = (".debug_pkl", "/serialization_id")
"""Records that name source files of this machine, and one that hashes those."""
_CONSTANTS = re.compile(rb"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)


class Program(nn.Module):
    """What the file offers; see `arraylstm.ItemModel`."""

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
        """Do what `forward` does, and return the diagnostics (B, S, ...)."""
        return self.model.unroll_with_diagnostics(items, state, lengths)

    @torch.jit.export
    def step_with_diagnostics(
        self, items: Tensor, state: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `step` does, and return the diagnostics (B, ...)."""
        return self.model.step_with_diagnostics(items, state)

    @torch.jit.export
    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the zero state for a batch."""
        return self.model.initial_state(batch)


def write_torchscript(model: ItemModel, path: Path) -> None:
    """Write the model as a TorchScript file: the same bytes every time, and nothing of the machine it was made on."""
    saved = io.BytesIO()
    with through_torch():
        torch.jit.save(torch.jit.script(Program(model)), saved)
    with zipfile.ZipFile(saved) as archive:
        records = {name: archive.read(name) for name in archive.namelist() if not name.endswith(_OF_THIS_RUN)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            settled = _CONSTANTS.sub(_in_order, content) if name.endswith(".py") else content
            archive.writestr(zipfile.ZipInfo(name), settled)  # dated 1980, as torch itself does


def _in_order(constants: re.Match[bytes]) -> bytes:
    """Return declarations of constants in alphabetical order: torch writes a set of them, in any order."""
    return b"".join(sorted(constants[0].splitlines(keepends=True)))
