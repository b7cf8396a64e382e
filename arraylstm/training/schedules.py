"""How the step size moves, and the average of the weights."""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from arraylstm.training.options import Schedule, TrainingOptions

LOWEST = 0.1
"""What the step size falls to, as a share of its largest."""
PACE_OF_NUMBERS = 10.0
"""How much larger the steps of single numbers are: a repeat bias has to go as far as scores reach."""


def share_of_rate(step: int, steps: int, warm_up: float, schedule: Schedule) -> float:
    """Return the step size of a step (from 0) out of so many, as a share of the largest."""
    rising = round(steps * warm_up)
    if step < rising:
        return (step + 1) / rising
    gone = (step - rising) / max(1, steps - rising)
    falls = {"cosine": (1 + math.cos(math.pi * gone)) / 2, "linear": 1 - gone, "constant": 1.0}
    return LOWEST + (1 - LOWEST) * falls[schedule]


def make_optimiser(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return Adam, with weights that shrink (AdamW); biases and other single rows of numbers do not.

    Each group of weights has a `pace`, by which the step size is multiplied.
    """
    assert options.learning_rate is not None
    matrices = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() > 1]
    rows = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() == 1]
    numbers = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() == 0]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay, "pace": 1.0},
        {"params": rows, "weight_decay": 0.0, "pace": 1.0},
        {"params": numbers, "weight_decay": 0.0, "pace": PACE_OF_NUMBERS},
    ]
    fused = matrices[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=fused)


class Average:
    """An exponential moving average of a model's weights; at the start, of those so far.

    Args:
        model: the model, whose weights it begins with.
        share: what the average keeps of itself at a step; 0 for no average.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self._share = share
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.values = [weight.detach().clone() for weight in self._weights] if share else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after a step (from 0)."""
        if self.values:
            share = min(self._share, (1 + step) / (10 + step))
            get_ema_multi_avg_fn(share)(self.values, self._weights, step)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average."""
        for weight, value in zip(self._weights, self.values):
            kept = weight.clone()
            weight.copy_(value)
            value.copy_(kept)

    @torch.no_grad()
    def restore(self, values: list[Tensor]) -> None:
        """Go on from the values of another average."""
        for value, given in zip(self.values, values, strict=True):
            value.copy_(given)
