"""Picking one of the lanes of a unit: by chance, or the first of the largest. The lanes' axis is the second one."""

import torch
from torch import Tensor


def draw_lane(p: Tensor) -> Tensor:  # p (B, k, ...), sums to 1 over the lanes
    """Draw a lane (B, 1, ...) with the probabilities p, for every row and unit independently."""
    return first_largest(p / torch.empty_like(p).exponential_())  # p_j / Exp(1) is the largest with probability p_j


def first_largest(p: Tensor) -> Tensor:  # p (B, k, ...)
    """Return the first lane (B, 1, ...) whose p is the largest, as argmax does, which takes torch far longer."""
    return p.max(1, keepdim=True).indices


def one_hot(lane: Tensor, like: Tensor) -> Tensor:  # lane (B, 1, ...), like (B, k, ...)
    """Return 1 at the lane and 0 elsewhere, shaped and typed as `like`."""
    lanes = torch.arange(like.size(1), device=like.device).view([-1] + [1] * (like.dim() - 2))
    return (lane == lanes).to(like.dtype)
