"""`model.pt2`: one step of the model as torch.export writes it, the successor of TorchScript."""

from collections.abc import Sequence
from pathlib import Path

import torch

from arraylstm import ItemModel
from arraylstm_export.graphs import _Step, quiet
from arraylstm_export.runners import Array, Result, _arrays, _sorted, _Stepwise, _tensors
from arraylstm_export.signature import Interface


def write_program(model: ItemModel, interface: Interface, path: Path) -> None:
    """Write one step of a model in eval mode as an exported program that says nothing of the machine it was made on.

    Positional arguments and results are the step graph's: items (B) int64 and each state (B, ...) float32 -> logits
    (B, V), next states, traces; B is dynamic, 1 at least. Whole sequences are not in it: torch.export unrolls a loop,
    which would freeze their length.
    """
    batch = torch.export.Dim("B", min=1)
    example = (torch.zeros(2, dtype=torch.int64), *model.initial_state(2))
    dynamic = ({0: batch}, tuple({0: batch} for _ in interface.states))
    with quiet():
        program = torch.export.export(_Step(model, traced=bool(interface.traces)), example, dynamic_shapes=dynamic)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names files of this machine
        torch.export.save(program, path)


class ProgramStep(_Stepwise):
    """`model.pt2` in torch."""

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        self.module = torch.export.load(path).module()

    @torch.no_grad()
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        return _sorted(_arrays(list(self.module(*_tensors([items, *state])))), self.interface)
