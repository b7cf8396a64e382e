"""Which epoch is kept, and when a fit ends."""

import copy
import math
from typing import Any

from torch import Tensor, nn

from arraylstm.training.measure import Metrics
from arraylstm.training.options import KeepBy


def worth(metrics: Metrics, keep_by: KeepBy) -> float:
    """Return how good figures are, by one of them; those of a model that gives no numbers are worth -inf."""
    if math.isnan(metrics.loss):
        return -math.inf
    return {"loss": -metrics.loss, "mrr@20": metrics.mrr20, "hit@20": metrics.hit20}[keep_by]


class Best:
    """The weights of the best epoch so far: the first of those with the best figure.

    Args:
        keep_by: the figure.
        patience: epochs without a better one that are waited for; 0 waits for ever.
    """

    def __init__(self, keep_by: KeepBy, patience: int) -> None:
        self._keep_by: KeepBy = keep_by
        self._patience = patience
        self.epoch = 0
        self.worth = -math.inf
        self.weights: dict[str, Tensor] = {}

    def consider(self, epoch: int, metrics: Metrics, model: nn.Module) -> None:
        """Keep the model's weights if these are its best figures yet."""
        if worth(metrics, self._keep_by) > self.worth:
            self.epoch, self.worth = epoch, worth(metrics, self._keep_by)
            self.weights = copy.deepcopy(model.state_dict())

    def waited_long_enough(self, epoch: int) -> bool:
        """Tell whether no epoch was better for as long as patience lasts."""
        return 0 < self._patience <= epoch - self.epoch

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"epoch": self.epoch, "worth": self.worth, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.epoch, self.worth, self.weights = state["epoch"], state["worth"], state["weights"]
