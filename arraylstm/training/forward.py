"""How a model is run over the pieces of sessions: torch's LSTM kernel where all cells are LSTMs, else step by step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from arraylstm.cells import LSTM
from arraylstm.cells.base import Cell
from arraylstm.errors import one_line
from arraylstm.model import ItemModel
from arraylstm.training.options import TrainingOptions


class Forward:
    """Runs a model's embedding and cells, and carries the state from one piece to the next.

    Args:
        model: the model, where its weights lie.
        options: for the precision of products, and whether steps are compiled.
    """

    def __init__(self, model: ItemModel, options: TrainingOptions = TrainingOptions()) -> None:
        self.model = model
        self.device = model.like().device
        self._bf16, self._compile = options.precision == "bf16", options.compile
        self._cells: list[Cell] = list(model.layers.values())
        self._fused = all(type(cell) is LSTM for cell in self._cells)
        self.state: list[Tensor] = []

    def outputs(self, items: Tensor, begins: bool) -> Tensor:
        """Return the highest layer's outputs (B, S, H) for items (B, S), from zeros or from the piece before."""
        rows = items.size(0)
        state = self.model.initial_state(rows) if begins else [tensor[:rows] for tensor in self.state]
        x = self.model.embed(items)
        h, following = self._fused_unroll(x, state) if self._fused else self.model.layers.unroll(x, state)[:2]
        self.state = [tensor.detach() for tensor in following]
        return h

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Compute products in bfloat16 if that was asked for."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            yield

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Compile the cells' steps if that was asked for; a step of torch's own kernel needs no compiler.

        Raises:
            ValueError: torch cannot compile here.
        """
        if not self._compile or self._fused:
            yield
            return
        for cell in self._cells:
            cell.__dict__["step_with_diagnostics"] = torch.compile(cell.step_with_diagnostics)
        try:
            self._try_step()
            yield
        finally:
            for cell in self._cells:
                del cell.__dict__["step_with_diagnostics"]

    def _try_step(self) -> None:
        try:
            self.model.step(torch.zeros(2, dtype=torch.int64, device=self.device))
        except Exception as error:  # a compiler has errors of every kind
            raise ValueError(f"compile does not work here, leave it out: {one_line(error)}") from None

    def _fused_unroll(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        following: list[Tensor] = []
        layers = self.model.layers
        for layer, cell in enumerate(layers.values()):
            x = x if layer == 0 else F.dropout(x, layers.dropout, layers.training)
            x, after = _lstm(cell, x, state[2 * layer], state[2 * layer + 1])
            following += after
        return x, following


def _lstm(cell: LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs (B, S, H) and [h (B, H), c (B, 1, H)] of torch's kernel, for x (B, S, I) and a state."""
    hx = (h.unsqueeze(0), c.transpose(0, 1).contiguous())
    y, last_h, last_c = torch.lstm(x, hx, _by_torch(cell), True, 1, 0.0, cell.training, False, True)
    return y, [last_h[0], last_c.transpose(0, 1)]


def _by_torch(cell: LSTM) -> list[Tensor]:
    """Return the weights with the gates f, i, o, g in torch's order i, f, g, o, within the gradient.

    They lie in one piece of memory, one after the other, as a GPU's kernel wants them.
    """
    weights = [cell.i2h.weight, cell.h2h.weight, cell.i2h.bias, cell.h2h.bias]
    gates = [weight.chunk(4) for weight in weights]
    whole = torch.cat([gate.flatten() for f, i, o, g in gates for gate in (i, f, g, o)])
    parts = torch.split(whole, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights)]
