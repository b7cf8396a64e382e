"""The TorchScript file: the same methods under the same names for every model, whatever its own `forward` is."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from arraylstm import ItemModel
from arraylstm_export.graphs import quiet


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
    def unroll_traced(
        self, items: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `forward` does, and return the traces (B, S, ...)."""
        return self.model.unroll_traced(items, state, lengths)

    @torch.jit.export
    def step_traced(
        self, items: Tensor, state: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `step` does, and return the traces (B, ...)."""
        return self.model.step_traced(items, state)

    @torch.jit.export
    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the zero state for a batch."""
        return self.model.initial_state(batch)


def write_torchscript(model: ItemModel, path: Path) -> None:
    """Write the model as a TorchScript file that says nothing of the machine it was made on."""
    with quiet():
        torch.jit.script(Program(model)).save(str(path))  # type: ignore[no-untyped-call]
    _drop_debug_records(path)


def _drop_debug_records(path: Path) -> None:
    """Rewrite a TorchScript archive without the records that tell of the machine and the source it was made from."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".debug_pkl")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, as torch itself does
