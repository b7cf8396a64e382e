"""Choosing one of the lanes of a unit: by chance, or the first of the largest."""

import torch
from torch import Tensor


def draw_lane(p: Tensor, lanes: int) -> Tensor:
    """Draw an index along the axis `lanes` with the probabilities p along it, of its own for every other index."""
    return first_largest(p / torch.empty_like(p).exponential_(), lanes)  # p_j / Exp(1) is largest w.p. p_j


def first_largest(p: Tensor, lanes: int) -> Tensor:
    """Return the index of the first of the largest p along the axis `lanes`: argmax, which takes torch far longer."""
    return p.max(lanes, keepdim=True).indices


def one_hot(lane: Tensor, like: Tensor) -> Tensor:
    """Return 1 at the lane (B, 1, ...) and 0 elsewhere, shaped and typed as `like` (B, k, ...)."""
    lanes = torch.arange(like.size(1), device=like.device).view([-1] + [1] * (like.dim() - 2))
    return (lane == lanes).to(like.dtype)
