"""The sequence graph of plain LSTMs through ONNX's own LSTM operator, which runtimes have made fast.

It says nothing of the cell but in which order the operator takes its weights; parity checks hold it, as every sequence
graph, to the model. The step graph stays what it is for every cell.
"""

from typing import TypeGuard

import torch
from onnx import ModelProto
from torch import Tensor, nn

from arraylstm import LSTM, ItemModel, NextItemModel
from arraylstm.cells.base import clear_past, hold
from arraylstm_export.graphs import OPSET, export_graph, sequence_graph
from arraylstm_export.signature import Interface


def fastest_sequence_graph(model: ItemModel, step: ModelProto, interface: Interface) -> ModelProto:
    """Return the sequence graph on the LSTM operator where that is the model, else the Scan over the step graph."""
    return lstm_sequence_graph(model, interface) if is_plain_lstm(model) else sequence_graph(step, interface)


def is_plain_lstm(model: ItemModel) -> TypeGuard[NextItemModel]:
    """Tell whether every layer of the model is an LSTM whose step nobody has overridden."""
    return isinstance(model, NextItemModel) and all(type(cell) is LSTM for cell in model.cells.values())


def lstm_sequence_graph(model: NextItemModel, interface: Interface) -> ModelProto:
    """Export whole sequences of a model for which `is_plain_lstm` holds; inputs and outputs as `sequence_graph` has."""
    batch, steps = torch.export.Dim("B", min=1), torch.export.Dim("S", min=1)
    example = (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 2]), *model.initial_state(2))
    dynamic = ({0: batch, 1: steps}, {0: batch}, tuple({0: batch} for _ in interface.states))
    return export_graph("sequence", _Sequence(model), example, dynamic, interface.sequence)


class _Sequence(nn.Module):
    def __init__(self, model: NextItemModel) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleList(_Layer(cell) for cell in model.cells.values())

    def forward(self, items: Tensor, lengths: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x = self.model.embed(items).transpose(0, 1)
        following: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x, after = layer(x, lengths, list(state[2 * number : 2 * number + 2]))
            following += after
        return (clear_past(self.model.score(x.transpose(0, 1)), lengths), *following)


class _Layer(nn.Module):
    """One LSTM operator: x (S, B, I), lengths (B), h (B, H) and c (B, 1, H) -> (S, B, H) and the next h and c."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        assert isinstance(cell, LSTM)
        self.width = cell.hidden_size
        self.register_buffer("w", _iofc(cell.i2h.weight))
        self.register_buffer("r", _iofc(cell.h2h.weight))
        self.register_buffer("b", torch.cat([_iofc(cell.i2h.bias), _iofc(cell.h2h.bias)], 1))

    def forward(self, x: Tensor, lengths: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, c = state[0].unsqueeze(0), state[1].transpose(0, 1)  # the operator has an axis of directions in front
        y, last_h, last_c = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (x, self.w, self.r, self.b, lengths.to(torch.int32), h, c),
            {"hidden_size": self.width},
            dtypes=(torch.float32,) * 3,
            shapes=((x.shape[0], 1, x.shape[1], self.width), h.shape, h.shape),
            version=OPSET,
        )
        after = [last_h.squeeze(0), last_c.transpose(0, 1)]
        return y.squeeze(1), hold(after, state, lengths > 0)  # of rows without steps the operator's state is zero


def _iofc(weight: Tensor) -> Tensor:
    """Return gates f, i, o, g as the operator has them, with its axis of directions: i, o, f, g."""
    f, i, o, g = weight.detach().chunk(4)
    return torch.cat([i, o, f, g]).unsqueeze(0)
