"""How often each rank came."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arraylstm.metrics.predictions import NOWHERE


@dataclass
class Counted:
    """Sums over a group of predictions: how often each rank up to `depth` came, and of all ranks the reciprocals."""

    depth: int
    ranks: Tensor = field(init=False)
    predictions: int = 0
    reciprocals: float = 0.0

    def __post_init__(self) -> None:
        self.ranks = torch.zeros(self.depth + 2, dtype=torch.int64)

    def add(self, found: Tensor) -> None:
        """Add ranks (N,)."""
        self.ranks += found.clamp(max=self.depth + 1).bincount(minlength=self.depth + 2)
        self.predictions += len(found)
        self.reciprocals += float((1 / found[found != NOWHERE].double()).sum())

    def figures(self, cutoffs: Sequence[int]) -> dict[str, float]:
        """Return hit, MRR and NDCG at each cutoff, and the MRR of all ranks."""
        places = torch.arange(1, self.depth + 1, dtype=torch.float64)
        counts = self.ranks[1:-1].double() / max(1, self.predictions)
        gains = {"hit": torch.ones_like(places), "mrr": 1 / places, "ndcg": 1 / torch.log2(places + 1)}
        found = {f"{name}@{k}": float((counts * gain)[:k].sum()) for name, gain in gains.items() for k in cutoffs}
        return {**found, "mrr": self.reciprocals / max(1, self.predictions)}


def add_groups(sums: dict[int, Counted], groups: Tensor, found: Tensor, depth: int) -> None:
    """Add ranks (N,) to the sums of their groups (N,)."""
    for group in sorted(set(groups.tolist())):
        sums.setdefault(group, Counted(depth)).add(found[groups == group])
