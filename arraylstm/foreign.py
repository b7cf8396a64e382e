"""State dicts that other programs wrote: their keys and shapes tell which model they are.

A state dict holds weights alone. What a network does without weights (an activation, a sum, a start other than zeros)
leaves no key in it, so compare the loaded model with the network once.
"""

import re
from collections.abc import Callable, Iterable
from itertools import permutations, takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arraylstm.cells import CELLS
from arraylstm.convert import TORCH_NAMES, layer_from_torch, numbered
from arraylstm.errors import CheckpointError
from arraylstm.vocabulary import Vocabulary

Weights = dict[str, Tensor]
ROWS_A_UNIT = {1: "an nn.RNN", 3: "an nn.GRU"}
"""How many rows a unit has in other recurrent modules, whose weights have nn.LSTM's names; nn.LSTM has four."""


class Described(NamedTuple):
    """A model in a file: its class by name, the class's configuration, the weights, and the labels if there are any."""

    model: str
    config: dict[str, Any]
    weights: Weights
    vocabulary: Vocabulary | None = None


Reader = Callable[[Weights, str | None], Described]


def describe(content: dict[Any, Any], cell: str | None) -> Described:
    """Return the model that a state dict of another program is.

    Args:
        content: what the file holds: the state dict, or a training checkpoint with the state dict under a key.
        cell: the registry name of the cell, if keys and shapes leave it open.

    Raises:
        CheckpointError: it is of no known kind, or something in it is left over, ambiguous or of another shape.
    """
    weights = _state_dict(content)
    for candidate in (weights, _unwrapped(weights)):
        read = _reader(candidate)
        if read is not None:
            check_tensors(candidate)
            return read(candidate, cell)
    raise CheckpointError(
        "is neither an arraylstm model nor a state dict that load knows: it lacks lstm.i2h.weight (MyNetwork), "
        "*.weight_ih_l0 (a network around nn.LSTM), stack_rnn.0.pc_c2fg (LSTM2002) and cell_0.W_xz (MarkovLSTM); "
        f"its keys are {some(weights)}"
    )


def check_tensors(weights: dict[Any, Any]) -> None:
    """Raise CheckpointError unless every value is a dense tensor under a name."""
    for key, tensor in weights.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(f"{key!r} is not a dense tensor of numbers under a name")


def some(things: Iterable[Any]) -> str:
    """Return the first few things, and how many more there are."""
    listed = [str(thing) for thing in things]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _state_dict(content: dict[Any, Any]) -> dict[Any, Any]:
    """Return the content, or, if it is a training checkpoint, the one dict of tensors in it."""
    nested = {
        key: value
        for key, value in content.items()
        if isinstance(value, dict) and any(isinstance(inner, Tensor) for inner in value.values())
    }
    if len(nested) > 1:
        raise CheckpointError(f"holds {len(nested)} dicts of tensors, {some(nested)}; save the state dict alone")
    return next(iter(nested.values()), content)


def _reader(weights: dict[Any, Any]) -> Reader | None:
    """Return the reader for state dicts with such keys."""
    found = (read for pattern, read in KNOWN.items() if any(re.search(pattern, str(key)) for key in weights))
    return next(found, None)


def _unwrapped(weights: dict[Any, Any]) -> dict[Any, Any]:
    """Return the weights without the prefix that all names share, such as the `module.` of nn.DataParallel."""
    levels = zip(*(str(key).split(".")[:-1] for key in weights))
    depth = len(list(takewhile(lambda names: len(set(names)) == 1, levels)))
    return {".".join(str(key).split(".")[depth:]): tensor for key, tensor in weights.items()}


def _require_keys(weights: Weights, kind: str, *needed: str) -> None:
    """Raise CheckpointError unless the keys are there whose shapes give the sizes."""
    missing = [key for key in needed if key not in weights]
    if missing:
        raise CheckpointError(f"is no {kind} state dict: it lacks {', '.join(missing)}")


def _sizes(weights: Weights, key: str, dimensions: int) -> list[int]:
    """Return the sizes of a weight, or raise CheckpointError unless it has this many dimensions and is not empty."""
    shape = list(weights[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"{key} must have {dimensions} dimensions and none of size 0, got {shape}")
    return shape


# -- MyNetwork, of array-lstm's documentation -------------------------------------------------------------------


def _my_network(weights: Weights, cell: str | None) -> Described:
    _require_keys(weights, "MyNetwork", "lstm.i2h.weight", "lstm.h2h.weight", "linear.weight", "linear.bias")
    rows, num_items = _sizes(weights, "lstm.i2h.weight", 2)
    outputs, hidden_size = _sizes(weights, "linear.weight", 2)
    if outputs != num_items or rows % (4 * hidden_size):
        raise CheckpointError(
            f"lstm.i2h.weight {[rows, num_items]} and linear.weight {[outputs, hidden_size]} do not fit a "
            "next-item model: as many outputs as inputs and a multiple of 4 * hidden_size rows are needed"
        )
    k = rows // (4 * hidden_size)
    name = cell or _cell_of(k, attention="lstm.i2a.weight" in weights)
    renamed = {re.sub(r"^lstm\.", "cells.0.", key): tensor for key, tensor in weights.items()}
    config = {"cell": name, "num_items": num_items, "hidden_size": hidden_size, "k": k}
    return Described("NextItemModel", config, renamed)


def _cell_of(k: int, attention: bool) -> str:
    if k == 1 and not attention:
        return "lstm"
    raise CheckpointError(
        f"is a bare state dict with k={k}{' and attention' if attention else ''}, whose keys do not tell the "
        f"cell; name it (cell=..., --cell): one of {', '.join(CELLS)}"
    )


# -- networks around nn.LSTM ------------------------------------------------------------------------------------


def _around_torch_lstm(weights: Weights, cell: str | None) -> Described:
    prefix, suffixes = _find_lstm(weights)
    layers = [{name: f"{prefix}{name}{suffix}" for name in TORCH_NAMES.values()} for suffix in suffixes]
    _check_lstm(weights, layers)
    hidden_size, input_size = weights[layers[0]["weight_hh"]].size(1), weights[layers[0]["weight_ih"]].size(1)
    inside = {key for layer in layers for key in layer.values()}
    outside = {key: tensor for key, tensor in weights.items() if key not in inside}
    embedding, output = _find_ends(outside, input_size, hidden_size)
    num_items = outside[f"{output}weight"].size(0)
    config = {
        "cell": "lstm",
        "num_items": num_items,
        "hidden_size": hidden_size,
        "k": 1,
        "num_layers": len(layers),
        "embedding_size": None if embedding is None else input_size,
    }
    converted = [
        layer_from_torch({name: weights[key] for name, key in layer.items() if key in weights}) for layer in layers
    ]
    renamed = {f"cells.{name}": tensor for name, tensor in numbered(converted).items()}
    renamed["linear.weight"] = outside[f"{output}weight"]
    renamed["linear.bias"] = outside.get(f"{output}bias", renamed["linear.weight"].new_zeros(num_items))
    if embedding is not None:
        renamed["embedding.weight"] = outside[f"{embedding}weight"]
    return Described("NextItemModel", config, renamed)


def _find_lstm(weights: Weights) -> tuple[str, list[str]]:
    """Return the one recurrent module's prefix, and the suffixes of its layers' names."""
    found = [match for key in weights if (match := re.fullmatch(r"(|.*\.)weight_ih(_l0)?", key))]
    if len(found) != 1:
        raise CheckpointError(f"holds {len(found)} recurrent modules, {some(m[0] for m in found)}; one is needed")
    prefix = found[0][1]
    for key, what in (("weight_ih_l0_reverse", "is bidirectional"), ("weight_hr_l0", "has a projection (proj_size)")):
        if prefix + key in weights:
            raise CheckpointError(f"the LSTM {prefix}* {what}; one that reads forwards, without projection, is needed")
    if found[0][2] is None:
        return prefix, [""]
    depth = sum(bool(re.fullmatch(re.escape(prefix) + r"weight_ih_l\d+", key)) for key in weights)
    return prefix, [f"_l{layer}" for layer in range(depth)]


def _check_lstm(weights: Weights, layers: list[dict[str, str]]) -> None:
    """Raise CheckpointError unless all weights of the layers are there and have an LSTM's shapes."""
    bias = layers[0]["bias_ih"] in weights
    missing = [
        key for layer in layers for name, key in layer.items() if key not in weights and (bias or "bias" not in name)
    ]
    if missing:
        raise CheckpointError(f"the LSTM lacks {some(missing)}")
    rows, hidden_size = _sizes(weights, layers[0]["weight_hh"], 2)
    if rows != 4 * hidden_size:
        what = ROWS_A_UNIT.get(rows // hidden_size, "no LSTM")
        raise CheckpointError(f"{layers[0]['weight_hh']} {[rows, hidden_size]} is of {what}; an nn.LSTM is needed")
    _, width = _sizes(weights, layers[0]["weight_ih"], 2)
    for layer in layers:
        expected = {"weight_ih": [rows, width], "weight_hh": [rows, hidden_size], "bias_ih": [rows], "bias_hh": [rows]}
        for name, key in layer.items():
            if key in weights and list(weights[key].shape) != expected[name]:
                raise CheckpointError(f"{key} must be {expected[name]}, got {list(weights[key].shape)}")
        width = hidden_size


def _find_ends(outside: Weights, input_size: int, hidden_size: int) -> tuple[str | None, str]:
    """Return the prefixes of the embedding (None if inputs are one-hot) and of the output layer."""

    def fit(embedding: str | None, output: str) -> bool:
        num_items = outside[f"{output}weight"].size(0)
        expected = {f"{output}weight": [num_items, hidden_size], f"{output}bias": [num_items]}
        if embedding is not None:
            expected[f"{embedding}weight"] = [num_items, input_size]
        fed = embedding is not None or input_size == num_items
        return fed and all(list(tensor.shape) == expected.get(key) for key, tensor in outside.items())

    matrices = [key for key, tensor in outside.items() if re.search(r"(^|\.)weight$", key) and tensor.dim() == 2]
    names = [key.removesuffix("weight") for key in matrices]
    pairs = [(None, names[0])] if len(names) == 1 else list(permutations(names)) if len(names) == 2 else []
    fitting = [(embedding, output) for embedding, output in pairs if fit(embedding, output)]
    if not fitting:
        raise CheckpointError(
            f"around an LSTM of {input_size} inputs and {hidden_size} units, an output layer (V, {hidden_size}), "
            f"with or without bias, and an embedding (V, {input_size}) (none where V = {input_size}) are needed and "
            f"nothing else; there are {some(f'{key} {list(tensor.shape)}' for key, tensor in outside.items())}"
        )
    if len(fitting) == 2 and not torch.equal(*(outside[key] for key in matrices)):
        raise CheckpointError(
            f"either of {' and '.join(matrices)} may be the embedding and the other the output layer; "
            "give the output layer a bias, of zeros if it has none, and save again"
        )
    return fitting[0]


# -- LSTM2002, of language-model-playground ---------------------------------------------------------------------


def _lstm2002(weights: Weights, cell: str | None) -> Described:
    _require_keys(weights, "LSTM2002", "emb.weight")
    for key, tensor in weights.items():
        if key.endswith((".h_0", ".c_0")) and tensor.any():
            raise CheckpointError(f"{key} is not zero; a session starts from zeros, so the answers would be others")
    num_items, d_emb = _sizes(weights, "emb.weight", 2)
    _, n_blk, d_blk = _sizes(weights, "stack_rnn.0.pc_c2fg", 3)
    layers = {key.split(".")[1] for key in weights if key.startswith("stack_rnn.")}
    sizes = {"d_blk": d_blk, "d_emb": d_emb, "n_blk": n_blk, "n_lyr": len(layers)}
    return Described("LSTM2002", {"cell": "lstm2002", "num_items": num_items, **sizes}, weights)


# -- MarkovLSTM, of MarkovRNNs' kLSTM.py --------------------------------------------------------------------------


def _markov(weights: Weights, cell: str | None) -> Described:
    """Describe a MarkovLSTM over one-hot items, whose output after every item scores the next one."""
    _require_keys(weights, "MarkovLSTM", "cell_0.W_hz", "fc.weight", "fc.bias")
    input_size, k = _sizes(weights, "cell_0.W_xz", 2)
    hidden_size, _ = _sizes(weights, "cell_0.W_hz", 2)
    [outputs] = _sizes(weights, "fc.bias", 1)
    if outputs != input_size:
        raise CheckpointError(
            f"is a MarkovLSTM that maps vectors of {input_size} numbers to {outputs} outputs (cell_0.W_xz "
            f"{[input_size, k]}, fc.bias {[outputs]}); a next-item model has an output for each of its one-hot "
            "inputs, and one that classifies sequences of vectors can be called but not served"
        )
    layers = {match[1] for key in weights if (match := re.match(r"cell_(\d+)\.", key))}
    config = {"cell": "markov", "num_items": input_size, "hidden_size": hidden_size, "k": k, "num_layers": len(layers)}
    renamed = {re.sub(r"^cell_", "cells.", re.sub(r"^fc\.", "linear.", key)): tensor for key, tensor in weights.items()}
    if not any(".b_" in key for key in weights):  # use_bias=False
        for layer in layers:
            for bias, width in (("b_xz", k), ("b_4gates", 4 * k * hidden_size)):
                renamed[f"cells.{layer}.{bias}"] = weights["fc.bias"].new_zeros(width)
    return Described("NextItemModel", config, renamed)


KNOWN: dict[str, Reader] = {
    r"^lstm\.i2h\.weight$": _my_network,
    r"(^|\.)weight_ih(_l0)?$": _around_torch_lstm,
    r"^stack_rnn\.0\.pc_c2fg$": _lstm2002,
    r"^cell_0\.W_xz$": _markov,
}
"""For the pattern of a key that only one kind of state dict has, the reader of that kind."""
