"""Checks of arguments that layers and models share; every message gives the value seen and the value allowed."""

import torch
from torch import Tensor


def require_positive(name: str, value: int) -> None:
    """Raise ValueError unless value is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def require_dropout(dropout: float, name: str = "dropout") -> float:
    """Return the probability, or raise ValueError unless it lies in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {dropout!r}")
    return dropout


def require_input(x: Tensor, input_size: int, lengths: Tensor | None = None) -> None:
    """Raise TypeError unless x is a tensor, ValueError unless it is (B, S, I) and the lengths, if any, fit it."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor padded to equal length, beside its lengths, got a {type(x).__name__}")
    if x.dim() != 3 or x.size(2) != input_size:
        raise ValueError(f"x must be (batch, steps, {input_size}), got {list(x.shape)}")
    if lengths is not None:
        require_lengths(lengths, x.size(0), x.size(1))


def require_state(state: list[Tensor], batch: int, names: list[str], shapes: list[list[int]]) -> None:
    """Raise ValueError unless the state has a tensor of the right shape for every name."""
    if len(state) != len(shapes):
        raise ValueError(f"state must be {len(shapes)} tensors, got {len(state)}")
    for name, shape, given in zip(names, shapes, state):
        if list(given.shape) != [batch] + shape:
            raise ValueError(f"state {name} must be {[batch] + shape}, got {list(given.shape)}")


def require_lengths(lengths: Tensor, batch: int, steps: int) -> None:
    """Raise ValueError unless lengths are (B,) int64 from 0 to the number of steps."""
    if lengths.dtype != torch.int64 or list(lengths.shape) != [batch]:
        raise ValueError(f"lengths must be int64 {[batch]}, got {lengths.dtype} {list(lengths.shape)}")
    if lengths.device.type != "cpu" or batch == 0:
        return  # reading them from an accelerator would wait for it
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 0 or longest > steps:
        wrong = shortest if shortest < 0 else longest
        raise ValueError(f"lengths must be from 0 to {steps}, the number of steps, got {wrong}")


def lengths_beside(series: Tensor, lengths: Tensor | list[int]) -> Tensor:
    """Return lengths, a tensor or a list as `require_lengths` wants it, on the device of a series (B, S, ...)."""
    if isinstance(lengths, list):  # the CPU whatever torch's default device is: checking lengths there is free
        lengths = torch.tensor(lengths, dtype=torch.int64, device="cpu")
    require_lengths(lengths, series.size(0), series.size(1))
    return lengths.to(series.device)
