"""What `arraylstm-train` is told about the model, the sessions and their parts."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from arraylstm.cells import CELLS
from arraylstm.checks import require_positive
from arraylstm.nextitem import NextItemModel
from arraylstm.training.recipes import in_words, recipe_for
from arraylstm.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model that is fitted; what is None is chosen by the number of items."""

    cell: Annotated[str, Parameter(help=f"Recurrent cell: {', '.join(CELLS)}.")] = "array"
    hidden_size: int | None = None
    """Hidden units of a layer [default: by the data]."""
    k: int | None = None
    """Memory cells a unit, for the cells that have several [default: by the data]."""
    num_layers: int = 1
    """Layers of cells."""
    embedding_size: int | None = None
    """Width of the item embedding; 0 feeds one-hot vectors [default: by the data]."""
    dropout: float | None = None
    """Probability of dropping an output of a layer while training [default: by the data]."""
    embedding_dropout: float | None = None
    """Probability of dropping a feature of an embedding while training [default: by the data]."""
    item_dropout: float | None = None
    """Probability of reading nothing in place of an item while training [default: by the data]."""
    tied: bool | None = None
    """Score items by their own embeddings [default: by the data]."""
    scale: float | None = None
    """Score items by a cosine times this number; 0 scores them by plain products [default: by the data]."""
    repeat_bias: bool | None = None
    """Learn a number that is added to the score of the item just read [default: by the data]."""
    learned_start: bool = False
    """Learn the state that sessions start from, instead of zeros."""

    def settled(self, num_items: int) -> tuple["ModelOptions", list[str]]:
        """Return the options with everything chosen, and in words what was chosen by the number of items and why."""
        recipe = recipe_for(num_items)
        suits = dict(recipe.model)
        if self.embedding_size == 0:
            suits |= {"tied": False, "embedding_dropout": 0.0, "item_dropout": 0.0}
        chosen = {name: value for name, value in suits.items() if getattr(self, name) is None}
        reasons = [f"{recipe.reason}: {in_words(chosen)}"] if chosen else []
        return replace(self, **chosen), reasons

    def make(self, num_items: int, vocabulary: Vocabulary | None = None) -> NextItemModel:
        """Construct the model for a number of items, from settled options; raises what its constructor does."""
        arguments = {**asdict(self), "embedding_size": self.embedding_size or None, "scale": self.scale or None}
        return NextItemModel(**arguments, num_items=num_items, vocabulary=vocabulary)


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which sessions are kept from training."""

    holdout: Annotated[float | Path, Parameter(name=["--holdout", "--test"])] = 0.2
    """Share of sessions that the reported figures are measured on, or a file of them."""
    validation: float | Path = 0.1
    """Share of sessions that choose the best epoch, or a file of them."""
    split: Literal["random", "time"] = "random"
    """How shares are split off: at random, or by the time of a session's last event, the latest for --test and those \
before them for --validation."""

    def __post_init__(self) -> None:
        """Raise ValueError for shares that leave nothing to train on."""
        for name in ("holdout", "validation"):
            share = getattr(self, name)
            if not isinstance(share, Path) and not 0 < share < 1:
                raise ValueError(f"{name} must be a file or lie between 0 and 1, got {share!r}")
        if sum(self.shares) >= 1:
            raise ValueError(
                f"holdout and validation must leave sessions to train on, got {self.holdout} and {self.validation}"
            )

        if self.split == "time" and not self.shares:
            raise ValueError("split says how shares are split off, but validation and holdout are both files")

    @property
    def given(self) -> dict[str, float | Path]:
        """The share or file of each part."""
        return {"validation": self.validation, "test": self.holdout}

    @property
    def files(self) -> dict[str, Path]:
        """The files of the parts that have one."""
        return {name: path for name, path in self.given.items() if isinstance(path, Path)}

    @property
    def shares(self) -> list[float]:
        """The shares of validation and held-out sessions that are split off, without those that are files."""
        return [share for share in self.given.values() if not isinstance(share, Path)]


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """Which sessions and items there are."""

    min_count: int = 1
    """Items seen less often share one unknown item; 1 keeps every item."""
    generated_sessions: int = 2000
    """Sessions to generate where no DATA is given."""

    def __post_init__(self) -> None:
        """Raise ValueError for counts that leave no item."""
        require_positive("min_count", self.min_count)
        require_positive("generated_sessions", self.generated_sessions)
