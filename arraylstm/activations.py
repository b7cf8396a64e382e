"""What may stand between the two layers of an output, by name, as configurations hold it."""

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = ("none", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid")


def activate(name: str, x: Tensor) -> Tensor:
    """Apply an activation, with torch's default parameters, to a tensor of any shape."""
    if name == "relu":
        return torch.relu(x)
    if name == "leaky_relu":
        return F.leaky_relu(x)
    if name == "elu":
        return F.elu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "silu":
        return F.silu(x)
    if name == "tanh":
        return torch.tanh(x)
    return torch.sigmoid(x) if name == "sigmoid" else x
