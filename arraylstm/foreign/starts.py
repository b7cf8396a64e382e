"""The state that a network's sequences start from, where it was learned and not zeros."""

import re

from torch import Tensor
from torch.nn import functional as F

from arraylstm.errors import CheckpointError
from arraylstm.foreign.described import Weights, flag, some

START = re.compile(
    r"(^|[._])(h|c|hx|cx|hidden|cell)_?(0|init|state|start)([._]l?\d+)?$|init(ial)?_?(h|c|state)", re.IGNORECASE
)
"""The names of states to start from; a number behind it is that of a layer."""

HIDDEN, CELL = {"h", "hx", "hidden"}, {"c", "cx", "cell"}
"""The words that tell which of the two states it is."""


def split_starts(outside: Weights) -> tuple[Weights, Weights]:
    """Return the weights without states to start from, and these states; none of them if all are zeros."""
    starts = {key: tensor for key, tensor in outside.items() if START.search(key)}
    others = {key: tensor for key, tensor in outside.items() if key not in starts}
    return others, starts if any(tensor.any() for tensor in starts.values()) else {}


def start_weights(starts: Weights, widths: list[int], k: int = 1) -> Weights:
    """Return what a stack of LSTMs starts from, by the names of `Cell.learn_start`; nothing for no starts.

    Args:
        starts: h and c, each for all layers in one tensor, or a tensor for each layer.
        widths: H of every layer; the narrower ones get zeros up to the widest.
        k: rows of c in a layer.

    Raises:
        CheckpointError: h or c is not there, or has another shape.
    """
    if not starts:
        return {}
    h, c = (_by_layer(starts, words, name) for words, name in ((HIDDEN, "h"), (CELL, "c")))
    if len(h) + len(c) < len(starts):
        raise CheckpointError(_refusal(starts, "whose names do not tell which is h and which is c; call them h_0, c_0"))
    found: Weights = {}
    for number, (name, keys, rows) in enumerate((("h", h, 1), ("c", c, k))):
        for layer, vectors in enumerate(_layers(starts, name, keys, widths, rows)):
            padded = F.pad(vectors, (0, max(widths) - vectors.size(1)))
            found[f"cells.{layer}.learned_start.{number}"] = padded if name == "c" else padded[0]
    return found


def _by_layer(starts: Weights, words: set[str], name: str) -> list[str]:
    """Return the keys of h or of c in the order of the numbers in them."""
    keys = [key for key in starts if _words(key) & words and not _words(key) & ((HIDDEN | CELL) - words)]
    if not keys:
        raise CheckpointError(
            _refusal(starts, f"and nothing tells what {name} starts from; save that too, as {name}_0, even if it is 0")
        )
    if len({re.sub(r"\d+", "", key) for key in keys}) > 1:
        raise CheckpointError(_refusal(starts, f"several of them for {name}; give them one name and a layer's number"))
    return sorted(keys, key=lambda key: [int(number) for number in re.findall(r"\d+", key)])


def _words(key: str) -> set[str]:
    """Return the words of a key's own name, which may end in the number of a layer."""
    last = re.sub(r"[.]l?\d+$", "", key).rpartition(".")[2].lower()
    return set(re.sub(r"init(ial)?|state|start|\d+", "_", last).split("_"))


def _layers(starts: Weights, name: str, keys: list[str], widths: list[int], rows: int) -> list[Tensor]:
    """Return h or c of every layer, each (rows, H)."""
    if len(keys) == len(widths):
        return [_shaped(starts, key, rows, width) for key, width in zip(keys, widths)]
    if len(keys) > 1 or len(set(widths)) > 1:
        raise CheckpointError(
            _refusal(starts, f"{len(keys)} of them for {name}; {len(widths)} layers of widths {widths} need one each")
        )
    return list(_shaped(starts, keys[0], rows * len(widths), widths[0]).chunk(len(widths)))


def _shaped(starts: Weights, key: str, rows: int, width: int) -> Tensor:
    """Return a state (rows, H) from one that may have an axis for a batch of one."""
    allowed = [[rows, width], [rows, 1, width], *([[width]] if rows == 1 else [])]
    given = list(starts[key].shape)
    if given not in allowed:
        raise CheckpointError(
            _refusal(starts, f"and {key} must be {' or '.join(map(str, allowed))} to be every session's, got {given}")
        )
    return starts[key].reshape(rows, width)


def _refusal(starts: Weights, why: str) -> str:
    return f"starts from a state of its own, {some(starts)}, {why}. Or leave it out ({flag('ignore')})"
