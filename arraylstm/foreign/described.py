"""What a reader of state dicts is told, what it returns, and the checks that all readers use."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor

from arraylstm.errors import CheckpointError
from arraylstm.vocabulary import Vocabulary

Weights = dict[str, Tensor]


class Described(NamedTuple):
    """A model in a file: its class by name, the class's configuration, the weights, and the labels if there are any."""

    model: str
    config: dict[str, Any]
    weights: Weights
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a caller knows of a state dict that its keys and shapes leave open."""

    cell: str | None = None
    """Cell of a bare state dict."""
    weights: str | None = None
    """Key of the state dict to take from a checkpoint that holds several; a.b is b inside a."""
    ignore: tuple[str, ...] = ()
    """Key to leave out of the state dict, as it takes no part in the answers; may be repeated, and have * in it."""
    tied: bool = False
    """Whether the one matrix beside the LSTM is the embedding and scores the items too."""
    no_embedding: bool = False
    """Whether the one matrix beside the LSTM is the output layer alone, and items are fed as one-hot vectors."""
    activation: str | None = None
    """What stands between the two layers of an output of two layers."""

    def given(self) -> list[str]:
        """Return the names of the hints that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


Reader = Callable[[Weights, Hints], Described]


def flag(name: str) -> str:
    """Return a hint as users write it, in Python and on the command line."""
    value = "True" if name in ("tied", "no_embedding") else "..."
    return f"{name}={value}, --{name.replace('_', '-')}"


def refuse_hints(hints: Hints, kind: str, *allowed: str) -> None:
    """Raise CheckpointError for a hint that says nothing about a kind of file."""
    useless = [name for name in hints.given() if name not in allowed]
    if useless:
        raise CheckpointError(f"is {kind}, of which {useless[0]} says nothing; leave it out ({flag(useless[0])})")


def some(things: Iterable[Any]) -> str:
    """Return the first few things, and how many more there are."""
    listed = [str(thing) for thing in things]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def shapes(weights: Weights) -> str:
    """Return the first few keys with their shapes."""
    return some(f"{key} {list(tensor.shape)}" for key, tensor in weights.items())


def require_keys(weights: Weights, kind: str, *needed: str) -> None:
    """Raise CheckpointError unless the keys are there whose shapes give the sizes."""
    missing = [key for key in needed if key not in weights]
    if missing:
        raise CheckpointError(f"is no {kind} state dict: it lacks {', '.join(missing)}")


def sizes(weights: Weights, key: str, dimensions: int) -> list[int]:
    """Return the sizes of a weight, or raise CheckpointError unless it has this many dimensions and is not empty."""
    shape = list(weights[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"{key} must have {dimensions} dimensions and none of size 0, got {shape}")
    return shape
