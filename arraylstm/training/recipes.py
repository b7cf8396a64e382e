"""The settings that suit the data, each with the reason; a user's own settings stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from arraylstm.training.options import RANKING, TrainingOptions

LARGE = 1000
"""From this number of items on most are rare: their weights are shared, and only a sample of them is scored."""
SYMMETRIC = 0.7
"""Sessions are reversed if pairs were seen the other way round at least so often, as a share of their own order."""


@dataclass(frozen=True)
class Recipe:
    """What suits one kind of data."""

    reason: str
    model: dict[str, Any]
    """Fields of arraylstm-train's ModelOptions: arguments of NextItemModel, with a scale of 0 for none."""
    training: dict[str, Any]
    """Fields of TrainingOptions; `reverse` is found by the data's symmetry."""


FEW_ITEMS = Recipe(
    reason=f"fewer than {LARGE:,} items, each seen often",
    model={
        "hidden_size": 64,
        "embedding_size": 64,
        "k": 4,
        "tied": False,
        "dropout": 0.0,
        "embedding_dropout": 0.0,
        "item_dropout": 0.0,
        "scale": 0.0,
        "repeat_bias": False,
    },
    training={
        "epochs": 10,
        "batch_size": 64,
        "learning_rate": 0.003,
        "loss": "full",
        "keep_by": "loss",
        "calibrate": False,
    },
)
MANY_ITEMS = Recipe(
    reason=f"{LARGE:,} items or more, most of them rare",
    model={
        "hidden_size": 100,
        "embedding_size": 100,
        "k": 2,
        "tied": True,
        "dropout": 0.2,
        "embedding_dropout": 0.2,
        "item_dropout": 0.25,
        "scale": 16.0,
        "repeat_bias": True,
    },
    training={
        "epochs": 8,
        "batch_size": 128,
        "learning_rate": 0.005,
        "loss": "sampled",
        "keep_by": "mrr@20",
        "calibrate": True,
    },
)


def recipe_for(num_items: int) -> Recipe:
    """Return what suits so many items."""
    return MANY_ITEMS if num_items >= LARGE else FEW_ITEMS


@dataclass(frozen=True)
class Symmetry:
    """How the pairs of neighbours in new sessions were seen in the training sessions."""

    forwards: float
    """Share that was seen in this order."""
    backwards: float
    """Share that was seen in the other order."""

    @property
    def says_reverse(self) -> bool:
        """Whether sessions read backwards are like sessions."""
        return self.backwards > SYMMETRIC * self.forwards > 0


def symmetry(train: Sequence[Sequence[int]], validation: Sequence[Sequence[int]]) -> Symmetry:
    """Look up the pairs of neighbours of the validation sessions in the training sessions."""
    seen = {pair for session in train for pair in pairwise(session)}
    pairs = [pair for session in validation for pair in pairwise(session) if pair[0] != pair[1]]
    count = max(1, len(pairs))
    return Symmetry(sum(pair in seen for pair in pairs) / count, sum(pair[::-1] in seen for pair in pairs) / count)


def settled(
    options: TrainingOptions,
    num_items: int,
    train: Sequence[Sequence[int]],
    validation: Sequence[Sequence[int]],
    can_sample: bool = True,
) -> tuple[TrainingOptions, list[str]]:
    """Return the options with everything chosen, and in words what was chosen by the data and why.

    Args:
        options: what the user said.
        num_items: V.
        train: sessions to learn from.
        validation: sessions to choose the epoch by.
        can_sample: whether the model can score a sample of items alone.
    """
    recipe = recipe_for(num_items)
    chosen = {name: value for name, value in recipe.training.items() if getattr(options, name) is None}
    if "loss" in chosen and not can_sample:
        chosen["loss"] = "full"
    if options.calibrate is None and options.loss in RANKING:
        chosen["calibrate"] = True
    reasons = [f"{recipe.reason}: {in_words(chosen)}"] if chosen else []
    if options.reverse is None:
        chosen["reverse"] = 0.0
        if recipe is MANY_ITEMS:
            found = symmetry(train, validation)
            chosen["reverse"] = 0.5 if found.says_reverse else 0.0
            reasons.append(
                f"of the validation part's pairs, {found.forwards:.0%} were seen in training in this order and "
                f"{found.backwards:.0%} in the other: {in_words({'reverse': chosen['reverse']})}"
            )
    return replace(options, **chosen), reasons


def in_words(settings: dict[str, Any]) -> str:
    """Return settings as a list of names and values."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())
