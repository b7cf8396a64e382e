"""The recurrent part of a network in plain torch: one nn.LSTM, or several LSTMs and LSTMCells on each other."""

import re
from itertools import pairwise, permutations

from torch import Tensor
from torch.nn import functional as F

from arraylstm.convert import TORCH_NAMES, layer_from_torch
from arraylstm.errors import CheckpointError
from arraylstm.foreign.described import Weights, sizes, some

ROWS_A_UNIT = {1: "an nn.RNN", 3: "an nn.GRU"}
"""How many rows a unit has in other recurrent modules, whose weights have nn.LSTM's names; nn.LSTM has four."""

MOST_MODULES = 6
"""How many modules without numbers in their names are put in order by their widths."""

Layer = dict[str, str]
"""The keys of one layer's weights, by torch's names for them: weight_ih and so on."""


class Recurrent:
    """The layers of a network in plain torch, from the bottom up.

    Attributes:
        keys: the keys of all their weights.
        input_size: the width of the lowest layer's input.
        output_size: the width of the highest layer's output.
        widths: the width of every layer's output.
        hidden_size: the width of the widest layer, which all layers get; units that are added stay zero.
    """

    def __init__(self, weights: Weights) -> None:
        modules = [_layers(weights, *found) for found in _find_modules(weights)]
        self._weights = weights
        self._layers = [layer for module in _in_order(weights, modules) for layer in module]
        self.keys = {key for layer in self._layers for key in layer.values()}
        self.input_size = weights[self._layers[0]["weight_ih"]].size(1)
        self.widths = [weights[layer["weight_hh"]].size(1) for layer in self._layers]
        self.output_size, self.hidden_size = self.widths[-1], max(self.widths)
        self.num_layers = len(self._layers)

    def converted(self) -> list[dict[str, Tensor]]:
        """Return each layer's weights by our names, all layers of the same width."""
        widths = [self.input_size, *[self.hidden_size] * (self.num_layers - 1)]
        return [
            layer_from_torch(
                {
                    name: _widened(self._weights[key], size, self.hidden_size, width if name == "weight_ih" else None)
                    for name, key in layer.items()
                    if key in self._weights
                }
            )
            for layer, size, width in zip(self._layers, self.widths, widths, strict=True)
        ]


def widened_columns(matrix: Tensor, width: int) -> Tensor:
    """Return a matrix (N, M) with columns of zeros added, up to a width."""
    return F.pad(matrix, (0, width - matrix.size(1)))


def _widened(tensor: Tensor, size: int, hidden_size: int, width: int | None) -> Tensor:
    """Return a layer's weight (4 * size, ...) for more units, which stay zero: their gates and candidates are."""
    if size == hidden_size and width in (None, tensor.size(-1)):
        return tensor
    gates = F.pad(tensor.reshape(4, size, -1), (0, 0, 0, hidden_size - size)).reshape(4 * hidden_size, -1)
    return gates[:, 0] if tensor.dim() == 1 else widened_columns(gates, width or hidden_size)


def _find_modules(weights: Weights) -> list[tuple[str, str]]:
    """Return each recurrent module's prefix and how its first layer's names end."""
    found = [match for key in weights if (match := re.fullmatch(r"(|.*\.)weight_ih(|_l0)", key))]
    return [(match[1], match[2]) for match in found]


def _layers(weights: Weights, prefix: str, end: str) -> list[Layer]:
    """Return the layers of one module, with all their weights there and of an LSTM's shapes."""
    for key, what in (("weight_ih_l0_reverse", "is bidirectional"), ("weight_hr_l0", "has a projection (proj_size)")):
        if prefix + key in weights:
            raise CheckpointError(f"the LSTM {prefix}* {what}; one that reads forwards, without projection, is needed")
    depth = sum(bool(re.fullmatch(re.escape(prefix) + r"weight_ih_l\d+", key)) for key in weights)
    ends = [f"_l{layer}" for layer in range(depth)] if end else [""]
    layers = [{name: f"{prefix}{name}{each}" for name in TORCH_NAMES.values()} for each in ends]
    _check(weights, layers)
    return layers


def _check(weights: Weights, layers: list[Layer]) -> None:
    """Raise CheckpointError unless all weights of a module's layers are there and have an LSTM's shapes."""
    bias = layers[0]["bias_ih"] in weights
    missing = [
        key for layer in layers for name, key in layer.items() if key not in weights and (bias or "bias" not in name)
    ]
    if missing:
        raise CheckpointError(f"the LSTM lacks {some(missing)}")
    rows, hidden_size = sizes(weights, layers[0]["weight_hh"], 2)
    if rows != 4 * hidden_size:
        what = ROWS_A_UNIT.get(rows // hidden_size, "no LSTM")
        raise CheckpointError(f"{layers[0]['weight_hh']} {[rows, hidden_size]} is of {what}; an nn.LSTM is needed")
    _, width = sizes(weights, layers[0]["weight_ih"], 2)
    for layer in layers:
        expected = {"weight_ih": [rows, width], "weight_hh": [rows, hidden_size], "bias_ih": [rows], "bias_hh": [rows]}
        for name, key in layer.items():
            if key in weights and list(weights[key].shape) != expected[name]:
                raise CheckpointError(f"{key} must be {expected[name]}, got {list(weights[key].shape)}")
        width = hidden_size


def _in_order(weights: Weights, modules: list[list[Layer]]) -> list[list[Layer]]:
    """Return the modules from the bottom up: by the numbers in their names, else in the one order that widths allow."""
    names = [module[0]["weight_ih"] for module in modules]
    if len({re.sub(r"_?\d+", "", name) for name in names}) == 1:
        orders = [sorted(modules, key=lambda module: [int(n) for n in re.findall(r"\d+", module[0]["weight_hh"])])]
    else:
        orders = [list(order) for order in permutations(modules)] if len(modules) <= MOST_MODULES else []
    fitting = [order for order in orders if _fits(weights, order)]
    if not fitting:
        raise CheckpointError(
            f"holds {len(modules)} recurrent modules, {some(names)}; one is needed, or several of which each "
            "takes what the one before gives"
        )
    if len(fitting) > 1:
        raise CheckpointError(
            f"holds {len(modules)} recurrent modules, {some(names)}, whose widths leave their order open; give them "
            "numbers in that order, such as lstm.0.* and lstm.1.*, and save again"
        )
    return fitting[0]


def _fits(weights: Weights, order: list[list[Layer]]) -> bool:
    """Tell whether each module takes what the one before it gives."""
    return all(
        weights[above[0]["weight_ih"]].size(1) == weights[below[-1]["weight_hh"]].size(1)
        for below, above in pairwise(order)
    )
