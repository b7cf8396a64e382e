"""From torch's own LSTM to this package's and back; no number changes."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from arraylstm.cells.array import ArrayLSTM
from arraylstm.cells.lstm import LSTM
from arraylstm.checks import require_input
from arraylstm.stack import Stack, input_widths

Layer = TypeVar("Layer", bound=nn.Module)
TORCH_NAMES = {
    "i2h.weight": "weight_ih",
    "i2h.bias": "bias_ih",
    "h2h.weight": "weight_hh",
    "h2h.bias": "bias_hh",
}


class LSTMStack(Stack):
    """LSTM layers on each other, called as `torch.nn.LSTM(batch_first=True)` is.

    Args:
        input_size: I.
        hidden_size: H of every layer.
        num_layers: L.
        dropout: probability of zeroing an output of any layer but the last in training.

    Raises:
        ValueError: a size smaller than 1, or a dropout outside [0, 1).
    """

    hidden_size: int
    num_layers: int

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float = 0.0) -> None:
        widths = input_widths(input_size, hidden_size, num_layers)
        super().__init__([LSTM(width, hidden_size) for width in widths], dropout)
        self.hidden_size = hidden_size
        self.num_layers = num_layers

    def forward(  # type: ignore[override]
        self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layers over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            hidden: (h (L, B, H), c (L, B, H)) to start from, never written to; None starts from zeros.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            The last layer's outputs (B, S, H), zero from a row's length on, and (h (L, B, H), c (L, B, H)) after
            every row's last step.

        Raises:
            ValueError: x, h, c or lengths has another shape, or a length lies outside 0 to S.
        """
        require_input(x, self.input_size, lengths)
        state = self.initial_state(x.size(0), x) if hidden is None else self.by_layer(hidden[0], hidden[1], x.size(0))
        outputs, following, _ = self.unroll(x, state, lengths)
        return outputs, (torch.stack(following[::2]), torch.cat(following[1::2], 1).transpose(0, 1).contiguous())

    def by_layer(self, h: Tensor, c: Tensor, batch: int) -> list[Tensor]:
        """Return the state as the layers take it from h and c, both (L, B, H), or raise ValueError."""
        for name, given in (("h", h), ("c", c)):
            if list(given.shape) != [self.num_layers, batch, self.hidden_size]:
                raise ValueError(
                    f"{name} must be {[self.num_layers, batch, self.hidden_size]}, got {list(given.shape)}"
                )
        state: list[Tensor] = []
        for layer in range(self.num_layers):
            state.extend([h[layer], c[layer].unsqueeze(1)])
        return state


def from_torch(module: nn.LSTM | nn.LSTMCell) -> LSTM | LSTMStack:
    """Return a layer with the weights of torch's, and its dtype, device, dropout and training mode.

    It gives the module's results, and takes inputs batch first even if the module does not. Weights frozen there
    (`requires_grad`) are frozen here. A module without biases gives a layer whose biases are zero.

    Args:
        module: an `nn.LSTMCell` or an `nn.LSTM` of any number of layers.

    Returns:
        An `LSTM` for one layer, an `LSTMStack` for several; both are called alike, with h and c (L, B, H).

    Raises:
        TypeError: another kind of module, or a subclass of these, whose results may differ.
        ValueError: a bidirectional module, one with `proj_size`, or one with a dropout of 1.
    """
    _require_plain(module)
    suffixes = [""] if isinstance(module, nn.LSTMCell) else [f"_l{layer}" for layer in range(module.num_layers)]
    layers = [layer_from_torch(_weights(module, suffix)) for suffix in suffixes]
    sizes = (module.input_size, module.hidden_size)
    if isinstance(module, nn.LSTMCell) or module.num_layers == 1:
        return _filled(lambda: LSTM(*sizes), layers[0], module.training)
    return _filled(lambda: LSTMStack(*sizes, module.num_layers, module.dropout), numbered(layers), module.training)


@overload
def to_torch(layer: ArrayLSTM | Stack, cell: Literal[False] = False) -> nn.LSTM: ...
@overload
def to_torch(layer: ArrayLSTM | Stack, cell: Literal[True]) -> nn.LSTMCell: ...
def to_torch(layer: ArrayLSTM | Stack, cell: bool = False) -> nn.LSTM | nn.LSTMCell:
    """Return torch's LSTM with a layer's weights, frozen or not, dtype, device, dropout and training mode.

    Args:
        layer: an `LSTM`, an `ArrayLSTM` with k=1, or an `LSTMStack` or other `Stack` of them.
        cell: return an `nn.LSTMCell`, for one layer, instead of an `nn.LSTM(batch_first=True)`.

    Raises:
        TypeError: another kind of layer, or a stack that holds one.
        ValueError: a layer with k above 1 or a learned start, layers of several widths, or several layers where a cell
            is asked for.
    """
    layers = _lstms(layer)
    if cell and len(layers) > 1:
        raise ValueError(f"an nn.LSTMCell is one layer, got {len(layers)}")
    sizes = (layers[0].input_size, layers[0].hidden_size)
    if cell:
        return _filled(lambda: nn.LSTMCell(*sizes), _to_torch_names(layers[0], ""), layer.training)
    dropout = layer.dropout if isinstance(layer, Stack) and len(layers) > 1 else 0.0
    renamed = [_to_torch_names(each, f"_l{number}") for number, each in enumerate(layers)]
    module = _filled(
        lambda: nn.LSTM(*sizes, len(layers), batch_first=True, dropout=dropout),
        {name: tensor for weights in renamed for name, tensor in weights.items()},
        layer.training,
    )
    module.flatten_parameters()  # an accelerator wants them in one piece of memory
    return module


def layer_from_torch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an `LSTM`'s weights by name from one layer of torch's, `weight_ih` and so on; its biases may be absent."""
    biases = {
        name.replace("weight", "bias"): torch.zeros_like(weight[:, 0], requires_grad=weight.requires_grad)
        for name, weight in weights.items()
        if name.startswith("weight")
    }
    given = {**biases, **weights}
    return {name: swap_gates(given[theirs]) for name, theirs in TORCH_NAMES.items()}


def numbered(layers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return a stack's weights by name from those of its layers."""
    return {f"{number}.{name}": tensor for number, layer in enumerate(layers) for name, tensor in layer.items()}


def swap_gates(rows: Tensor) -> Tensor:
    """Return the rows (4H, ...) of torch's gates i, f, g, o in this package's order f, i, o, g, or the other way.

    The result is a copy outside of any gradient, frozen if the rows are.
    """
    first, second, third, fourth = rows.detach().chunk(4)
    return torch.cat([second, first, fourth, third]).requires_grad_(rows.requires_grad)


def _weights(module: nn.LSTM | nn.LSTMCell, suffix: str) -> dict[str, Tensor]:
    present = TORCH_NAMES.values() if module.bias else [name for name in TORCH_NAMES.values() if "bias" not in name]
    return {name: getattr(module, name + suffix) for name in present}


def _filled(construct: Callable[[], Layer], weights: dict[str, Tensor], training: bool) -> Layer:
    """Construct a layer and put the weights in it, with their dtype, device and `requires_grad`."""
    with torch.device("meta"):  # draws no weights only to throw them away
        layer = construct()
    layer.load_state_dict(weights, assign=True)
    for name, weight in layer.named_parameters():
        weight.requires_grad_(weights[name].requires_grad)
    return layer.train(training)


def _to_torch_names(layer: nn.Module, suffix: str) -> dict[str, Tensor]:
    return {TORCH_NAMES[name] + suffix: swap_gates(tensor) for name, tensor in layer.named_parameters()}


def _require_plain(module: nn.Module) -> None:
    if type(module) not in (nn.LSTM, nn.LSTMCell):
        raise TypeError(f"from_torch takes an nn.LSTM or an nn.LSTMCell, got {_kind(module)}")
    if getattr(module, "bidirectional", False):
        raise ValueError("a bidirectional LSTM cannot go step by step; from_torch takes one that reads forwards only")
    if getattr(module, "proj_size", 0):
        raise ValueError(f"from_torch takes an LSTM without projection (proj_size=0), got proj_size={module.proj_size}")


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _lstms(layer: nn.Module) -> list[ArrayLSTM]:
    """Return the layers of a layer or stack, or raise unless an nn.LSTM can have them."""
    layers = list(layer.values()) if isinstance(layer, Stack) else [layer]
    lstms: list[ArrayLSTM] = []
    for each in layers:
        if not isinstance(each, ArrayLSTM) or type(each) not in (LSTM, ArrayLSTM):
            raise TypeError(f"to_torch takes LSTM, ArrayLSTM with k=1 and stacks of them, got {_kind(each)}")
        if each.k != 1:
            raise ValueError(f"to_torch takes an ArrayLSTM with k=1, the only one that torch has, got k={each.k}")
        if hasattr(each, "learned_start"):
            raise ValueError("to_torch takes layers that start from zeros, as nn.LSTM does; this one learned its start")
        lstms.append(each)
    widths = [each.hidden_size for each in lstms]
    if len(set(widths)) > 1:
        raise ValueError(f"to_torch takes layers of one hidden size, as nn.LSTM has, got {widths}")
    return lstms
