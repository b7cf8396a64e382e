"""Whether one predictor is surely better than another."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Comparison:
    """A paired comparison of two predictors over the same predictions, which are drawn together session by session.

    The predictions of one session depend on each other, so the standard error is that of a ratio over sessions.
    """

    sessions: int = 0
    _sums: Tensor = field(default_factory=lambda: torch.zeros(5, dtype=torch.float64))

    def add(self, differences: Tensor, counts: Tensor) -> None:
        """Add sessions: the sums (B,) of the differences over the predictions of each, and how many these are."""
        d, n = differences.double(), counts.double()
        self._sums += torch.stack([d.sum(), n.sum(), (d * d).sum(), (d * n).sum(), (n * n).sum()])
        self.sessions += len(d)

    @property
    def difference(self) -> float:
        """The mean difference over all predictions."""
        return float(self._sums[0] / self._sums[1])

    @property
    def standard_error(self) -> float:
        """The standard error of the difference; NaN for fewer than two sessions."""
        if self.sessions < 2:
            return math.nan
        mean = self.difference
        _, count, squares, products, sizes = self._sums.tolist()
        spread = max(0.0, squares - 2 * mean * products + mean * mean * sizes)
        return float(math.sqrt(spread * self.sessions / (self.sessions - 1)) / count)

    def figures(self) -> dict[str, float | str]:
        """Return the difference with its 95 % interval, the two-sided p of no difference, and a verdict in words."""
        difference, error = self.difference, self.standard_error
        p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else (math.nan if error else 1.0)
        if error == 0 and difference:
            p = 0.0
        verdict = ("better" if difference > 0 else "worse") if p < 0.05 else "not sure"
        low, high = difference - 1.96 * error, difference + 1.96 * error
        return {"difference": difference, "low": low, "high": high, "p": p, "verdict": verdict}
