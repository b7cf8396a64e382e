"""Where in a file the state dict is: alone, in a training checkpoint, beside an averaged copy or counters."""

import logging
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from arraylstm.errors import CheckpointError
from arraylstm.foreign.described import Hints, flag, some

Known = Callable[[dict[Any, Any]], bool]
"""Tells whether a dict has the keys of a state dict that can be read."""

DEEPEST = 4
"""How many dicts inside each other are searched."""

AVERAGED = re.compile(r"(^|[._-])(ema|swa|avg|averaged?|polyak|shadow)([._-]|$)", re.IGNORECASE)
"""The names of copies of the weights that are means over the training."""

logger = logging.getLogger(__name__)


def state_dict(content: dict[Any, Any], known: Known, hints: Hints) -> dict[Any, Any]:
    """Return the state dict in a file's content, without averaged copies, ignored keys and counters.

    What is left out is logged, unless the caller asked for it.

    Raises:
        CheckpointError: there are several, the hint names none of them, or a key to ignore is not there.
    """
    weights = _without_ignored(_chosen(content, known, hints.weights), hints.ignore)
    return _without_counters(_without_averaged(weights, known))


def check_tensors(weights: dict[Any, Any]) -> None:
    """Raise CheckpointError unless every value is a dense tensor under a name."""
    for key, tensor in weights.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(f"{key!r} is not a dense tensor of numbers under a name")


def unwrapped(weights: dict[Any, Any]) -> dict[Any, Any]:
    """Return the weights without the prefix that all names share, such as the `module.` of nn.DataParallel."""
    levels = zip(*(str(key).split(".")[:-1] for key in weights))
    depth = len(list(takewhile(lambda names: len(set(names)) == 1, levels)))
    return {".".join(str(key).split(".")[depth:]): tensor for key, tensor in weights.items()}


def _chosen(content: dict[Any, Any], known: Known, wanted: str | None) -> dict[Any, Any]:
    """Return the one state dict, the one that is wanted, or the one that is no averaged copy."""
    found: dict[str, dict[Any, Any]] = dict(_search(content, known))
    if wanted is not None:
        if wanted not in found:
            there = some(found) or "none"
            raise CheckpointError(f"has no state dict under {wanted!r} ({flag('weights')}); those in it: {there}")
        return found[wanted]
    trained = [path for path in found if not AVERAGED.search(path)]
    if len(found) > 1 and len(trained) == 1:
        others = [path for path in found if path not in trained]
        logger.warning("took the weights under %r, not those under %s (%s)", trained[0], some(others), flag("weights"))
        return found[trained[0]]
    if len(found) > 1:
        raise CheckpointError(f"holds {len(found)} state dicts, {some(found)}; name one ({flag('weights')})")
    return next(iter(found.values()), _likeliest(content))


def _search(content: dict[Any, Any], known: Known, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the state dicts in a content, each with the keys that lead to it."""
    if known(content):
        yield path, content
    elif depth < DEEPEST:
        for key, value in content.items():
            if isinstance(value, dict):
                yield from _search(value, known, f"{path}.{key}" if path else str(key), depth + 1)


def _likeliest(content: dict[Any, Any]) -> dict[Any, Any]:
    """Return what to name in a message where nothing is known: the first dict of tensors in the content, or itself."""
    dicts = [value for value in content.values() if isinstance(value, dict)]
    return next((each for each in dicts if any(isinstance(value, Tensor) for value in each.values())), content)


def _without_ignored(weights: dict[Any, Any], patterns: tuple[str, ...]) -> dict[Any, Any]:
    for pattern in patterns:
        kept = {key: tensor for key, tensor in weights.items() if not fnmatchcase(str(key), pattern)}
        if len(kept) == len(weights):
            raise CheckpointError(f"has no key {pattern!r} to ignore; its keys are {some(weights)}")
        weights = kept
    return weights


def _without_averaged(weights: dict[Any, Any], known: Known) -> dict[Any, Any]:
    """Leave out the averaged copy of a network that lies beside the network itself."""
    averaged = {key: tensor for key, tensor in weights.items() if AVERAGED.search(str(key))}
    trained = {key: tensor for key, tensor in weights.items() if key not in averaged}
    if not (known(averaged) and known(trained)):
        return weights
    logger.warning("left out the averaged copy of the weights: %s", some(averaged))
    return trained


def _without_counters(weights: dict[Any, Any]) -> dict[Any, Any]:
    """Leave out whole numbers that stand alone, such as a metric's; the count of a batch norm has weights beside it."""
    counters = [key for key, value in weights.items() if _counts(value) and "num_batches_tracked" not in str(key)]
    if not counters:
        return weights
    logger.warning("left out whole numbers, which are no weights: %s", some(counters))
    return {key: tensor for key, tensor in weights.items() if key not in counters}


def _counts(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0 and not (value.is_floating_point() or value.is_complex())
