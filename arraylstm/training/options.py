"""TrainingOptions: how a model is fitted."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from arraylstm.checks import require_positive

Loss = Literal["full", "sampled", "gbce", "bpr-max"]
KeepBy = Literal["loss", "mrr@20", "hit@20"]
Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["float32", "bf16"]

RANKING = ("gbce", "bpr-max")
"""The losses whose scores only rank, and are no logarithms of probabilities."""
_NAMES = {
    "loss": get_args(Loss),
    "keep_by": get_args(KeepBy),
    "schedule": get_args(Schedule),
    "precision": get_args(Precision),
}
_RANGES = {
    "warm_up": (1.0, False),
    "weight_decay": (math.inf, False),
    "average": (1.0, False),
    "negatives_power": (1.0, True),
    "gbce_t": (1.0, True),
    "bpr_penalty": (math.inf, False),
    "label_smoothing": (1.0, False),
    "reverse": (1.0, True),
}
"""The largest value of each, and whether it is itself allowed; the smallest is 0."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is fitted; what is None is chosen by the data's size, see `arraylstm.training.recipes`."""

    epochs: int | None = None
    """Passes over the training sessions [default: by the data]."""
    batch_size: int | None = None
    """Sessions to a batch, at most [default: by the data]."""
    batch_tokens: int = 16_384
    """Items to a batch with its padding, at most."""
    learning_rate: float | None = None
    """Largest step size of the Adam optimiser [default: by the data]."""
    schedule: Schedule = "cosine"
    """How the step size falls to a tenth: along a cosine, along a line, or not at all (constant)."""
    warm_up: float = 0.0
    """Share of the steps in which the step size rises from 0."""
    weight_decay: float = 0.0
    """Share of the step size by which weights, but no biases, shrink at a step."""
    average: float = 0.0
    """Share that the average of the weights keeps of itself at a step, such as 0.998; 0 takes no average."""
    bptt: int = 128
    """Steps that gradients flow back; longer sessions are learned from in pieces, their state carried over."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    loss: Loss | None = None
    """What is minimised: full is the cross-entropy over all items; sampled estimates it from the target and a sample \
of items; gbce and bpr-max compare the target with the sample [default: by the data]."""
    negatives: int = 2048
    """Items in a sample; a batch shares them."""
    negatives_power: float = 0.5
    """An item is drawn in proportion to its count to this power: 0 draws all alike."""
    gbce_t: float = 0.75
    """How far gbce corrects the confidence that sampling adds: 0 not at all, 1 fully."""
    bpr_penalty: float = 1.0
    """Weight of the penalty on high scores of drawn items, for bpr-max."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all items, for full and sampled."""
    reverse: float | None = None
    """Probability that a session is read backwards, drawn anew in each epoch [default: by the data]."""
    keep_by: KeepBy | None = None
    """What the best epoch is best by, on the validation sessions [default: by the data]."""
    calibrate: bool | None = None
    """Multiply the scores, at the end, by the factor that gives the validation sessions the lowest loss, for \
probabilities that are neither too sure nor too unsure [default: by the data, and always for gbce and bpr-max]."""
    patience: int = 0
    """Epochs without a better one after which the fit ends; 0 lets it run to its end."""
    precision: Precision = "float32"
    """Numbers of the products: bf16 is for GPUs that have it; weights and sums stay float32."""
    compile: bool = False
    """Compile the cells' step with torch.compile; it takes a while, and a C++ compiler on a CPU."""
    seed: int = 0
    """Seed of the order of sessions; arraylstm-train draws the weights and the split from it too."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that no fit can use."""
        self._check_sizes()
        self._check_ranges()
        for name, names in _NAMES.items():
            value = getattr(self, name)
            if value is not None and value not in names:
                raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}")

    def _check_sizes(self) -> None:
        for name in ("epochs", "batch_size", "batch_tokens", "bptt", "negatives"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        for name, largest in (("learning_rate", 10.0), ("clip", math.inf)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= largest:
                raise ValueError(f"{name} must be above 0 and at most {largest}, got {value!r}")
        if self.patience < 0:
            raise ValueError(f"patience must be at least 0, got {self.patience}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2**63, got {self.seed}")

    def _check_ranges(self) -> None:
        for name, (largest, allowed) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (0 <= value < largest or (allowed and value == largest)):
                raise ValueError(f"{name} must be from 0 {'to' if allowed else 'to below'} {largest}, got {value!r}")
