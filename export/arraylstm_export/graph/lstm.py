"""The sequence graph of plain LSTMs with ONNX's own LSTM operator, which runtimes compute fast.

All that is stated here about the cell is the order in which the operator takes its weights; the parity checks compare
this graph with the model as they do any other. The step graph of an LSTM is made like that of every other cell.
"""

from typing import TypeGuard

import torch
from onnx import ModelProto
from torch import Tensor, nn

from arraylstm import LSTM, ItemModel, NextItemModel
from arraylstm.cells.base import hold, past
from arraylstm_export.graph.opset import OPSET
from arraylstm_export.graph.torch_exporters import Traceable, export_graph
from arraylstm_export.interface import Interface


def is_plain_lstm(model: ItemModel) -> TypeGuard[NextItemModel]:
    """Tell whether every layer of the model is an LSTM, and neither the model nor a cell is of a subclass."""
    return type(model) is NextItemModel and all(type(cell) is LSTM for cell in model.cells.values())


def lstm_sequence_graph(model: NextItemModel, interface: Interface) -> ModelProto:
    """Export whole sequences of a plain LSTM, with the inputs and outputs that `sequence_graph` has."""
    batch, steps = torch.export.Dim("B", min=1), torch.export.Dim("S", min=1)
    example = (
        torch.zeros(2, 3, dtype=torch.int64),
        torch.tensor([3, 2]),
        *(torch.zeros(2, *state.shape) for state in interface.states),
    )
    dynamic = ({0: batch, 1: steps}, {0: batch}, tuple({0: batch} for _ in interface.states))
    exported = export_graph("sequence", Traceable(_Sequence(model), example, dynamic), interface.sequence)
    exported.graph.ClearField("value_info")  # torch states the shapes of padded tensors wrongly
    return exported


class _Sequence(nn.Module):
    """The model with LSTM operators.

    Some runtimes crash in the operator at batch 0, so it gets one row there. Nothing removes that row again: outputs
    are combined with the lengths, which have B rows, and shapes 0 and 1 broadcast to 0.
    """

    def __init__(self, model: NextItemModel) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleList(_Layer(cell) for cell in model.cells.values())

    def forward(self, items: Tensor, lengths: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        missing = _missing_rows(lengths)
        counts = _pad(lengths.clamp(0, items.shape[1]).to(torch.int32), missing)
        beyond = past(items, lengths)
        read = _pad(items.masked_fill(beyond, 0), missing)
        x = self.model.embed(read).transpose(0, 1)
        following: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            before = list(state[2 * number : 2 * number + 2])
            x, after = layer(x, counts, [_pad(tensor, missing) for tensor in before])
            following += hold(after, before, lengths > 0)  # the operator zeroes the state of rows without steps
        return (self.model.score(x.transpose(0, 1), read).masked_fill(beyond.unsqueeze(2), 0), *following)


class _Layer(nn.Module):
    """One LSTM operator: x (S, B, I), lengths (B) int32, h (B, H), c (B, 1, H) -> outputs (S, B, H), next h and c."""

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
        h, c = state[0].unsqueeze(0), state[1].transpose(0, 1)  # the operator has an axis of directions first
        y, last_h, last_c = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (x, self.w, self.r, self.b, lengths, h, c),
            {"hidden_size": self.width},
            dtypes=(torch.float32,) * 3,
            shapes=((x.shape[0], 1, x.shape[1], self.width), h.shape, h.shape),
            version=OPSET,
        )
        return y.squeeze(1), [last_h.squeeze(0), last_c.transpose(0, 1)]


def _missing_rows(lengths: Tensor) -> Tensor:
    """Return how many rows to add before and after those of lengths (B) to have at least one: 0 and max(0, 1 - B)."""
    rows = torch.onnx.ops.symbolic("Shape", (lengths,), dtype=torch.int64, shape=(1,), version=OPSET)
    return (torch.tensor([0, 1]) - rows).clamp(min=0)


def _pad(tensor: Tensor, missing: Tensor) -> Tensor:
    """Return the tensor (B, ...) with the missing rows. torch is told the same shape, as its B is at least 1."""
    inputs = (tensor, missing, None, torch.tensor([0]))  # no value: zeros; the axis
    return torch.onnx.ops.symbolic("Pad", inputs, dtype=tensor.dtype, shape=tensor.shape, version=OPSET)


def _iofc(weight: Tensor) -> Tensor:
    """Return weights of the gates f, i, o, g in the operator's order i, o, f, g, with its axis of directions first."""
    f, i, o, g = weight.detach().chunk(4)
    return torch.cat([i, o, f, g]).unsqueeze(0)
