"""What a fit tells while it runs, and when it has ended."""

from dataclasses import dataclass

from arraylstm.training.measure import Metrics


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after a batch or at the end of an epoch."""

    epoch: int
    """Epoch, from 1."""
    done: int
    """Predictions learned from in this epoch."""
    total: int
    """Predictions in an epoch."""
    loss: float
    """Mean of what is minimised in this epoch so far, in nats."""
    validation: Metrics | None = None
    """At an epoch's end: the figures on the validation sessions."""


@dataclass(frozen=True)
class Outcome:
    """How a fit ended."""

    best_epoch: int
    """Epoch (from 1) whose weights the model has."""
    epochs: int
    """Epochs that came to their end."""
    interrupted: bool
    """Whether Ctrl-C ended it."""
    factor: float = 1.0
    """What calibration multiplied the scores by."""
