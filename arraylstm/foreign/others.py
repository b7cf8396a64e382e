"""State dicts of array-lstm's MyNetwork, language-model-playground's LSTM2002 and MarkovRNNs' kLSTM.py."""

import re

from arraylstm.cells import CELLS
from arraylstm.errors import CheckpointError
from arraylstm.foreign.described import Described, Hints, Weights, require_keys, sizes
from arraylstm.foreign.starts import split_starts, start_weights

# -- MyNetwork, of array-lstm's documentation -------------------------------------------------------------------


def my_network(weights: Weights, hints: Hints) -> Described:
    """Describe a network of array-lstm's documentation: a cell over one-hot items, and a linear layer."""
    require_keys(weights, "MyNetwork", "lstm.i2h.weight", "lstm.h2h.weight", "linear.weight", "linear.bias")
    rows, num_items = sizes(weights, "lstm.i2h.weight", 2)
    outputs, hidden_size = sizes(weights, "linear.weight", 2)
    if outputs != num_items or rows % (4 * hidden_size):
        raise CheckpointError(
            f"lstm.i2h.weight {[rows, num_items]} and linear.weight {[outputs, hidden_size]} do not fit a "
            "next-item model: as many outputs as inputs and a multiple of 4 * hidden_size rows are needed"
        )
    k = rows // (4 * hidden_size)
    name = hints.cell or _cell_of(k, attention="lstm.i2a.weight" in weights)
    others, starts = split_starts(weights)
    renamed = {re.sub(r"^lstm\.", "cells.0.", key): tensor for key, tensor in others.items()}
    config = {"cell": name, "num_items": num_items, "hidden_size": hidden_size, "k": k}
    if starts:
        config["learned_start"] = True
        renamed |= start_weights(starts, [hidden_size], k)
    return Described("NextItemModel", config, renamed)


def _cell_of(k: int, attention: bool) -> str:
    if k == 1 and not attention:
        return "lstm"
    raise CheckpointError(
        f"is a bare state dict with k={k}{' and attention' if attention else ''}, whose keys do not tell the "
        f"cell; name it (cell=..., --cell): one of {', '.join(CELLS)}"
    )


# -- LSTM2002, of language-model-playground ---------------------------------------------------------------------


def lstm2002(weights: Weights, hints: Hints) -> Described:
    """Describe a language model of peephole LSTM layers."""
    require_keys(weights, "LSTM2002", "emb.weight")
    num_items, d_emb = sizes(weights, "emb.weight", 2)
    _, n_blk, d_blk = sizes(weights, "stack_rnn.0.pc_c2fg", 3)
    layers = {key.split(".")[1] for key in weights if key.startswith("stack_rnn.")}
    shape = {"d_blk": d_blk, "d_emb": d_emb, "n_blk": n_blk, "n_lyr": len(layers)}
    return Described("LSTM2002", {"cell": "lstm2002", "num_items": num_items, **shape}, weights)


# -- MarkovLSTM, of MarkovRNNs' kLSTM.py --------------------------------------------------------------------------


def markov(weights: Weights, hints: Hints) -> Described:
    """Describe a MarkovLSTM over one-hot items, whose output after every item scores the next one."""
    require_keys(weights, "MarkovLSTM", "cell_0.W_hz", "fc.weight", "fc.bias")
    input_size, k = sizes(weights, "cell_0.W_xz", 2)
    hidden_size, _ = sizes(weights, "cell_0.W_hz", 2)
    [outputs] = sizes(weights, "fc.bias", 1)
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
