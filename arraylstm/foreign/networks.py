"""Networks in plain torch around nn.LSTM or nn.LSTMCell, whatever their parts are called."""

from typing import Any

import torch
from torch import Tensor

from arraylstm.activations import ACTIVATIONS
from arraylstm.convert import numbered
from arraylstm.errors import CheckpointError
from arraylstm.foreign.described import Described, Hints, Weights, flag
from arraylstm.foreign.ends import EMBEDDED, NUMBER, TIED, Ends, find_ends
from arraylstm.foreign.lstms import Recurrent, widened_columns
from arraylstm.foreign.starts import split_starts, start_weights


def around_lstm(weights: Weights, hints: Hints) -> Described:
    """Describe a network around LSTMs: an embedding or none, and an output of one layer or two."""
    recurrent = Recurrent(weights)
    beside = {key: tensor for key, tensor in weights.items() if key not in recurrent.keys}
    outside, starts = split_starts(beside)
    ends = find_ends(outside, recurrent, hints)
    scored, head = _output(outside, ends, recurrent, hints)
    num_items = scored["linear.weight"].size(0)
    embedding = _embedding(outside, ends, num_items)
    config = {
        "cell": "lstm",
        "num_items": num_items,
        "hidden_size": recurrent.hidden_size,
        "k": 1,
        "num_layers": recurrent.num_layers,
        "embedding_size": None if embedding is None else recurrent.input_size,
        **head,
        **({"learned_start": True} if starts else {}),
    }
    renamed = {f"cells.{name}": tensor for name, tensor in numbered(recurrent.converted()).items()} | scored
    renamed |= start_weights(starts, recurrent.widths)
    if embedding is not None:
        renamed["embedding.weight"] = embedding
    return Described("NextItemModel", config, renamed)


def _embedding(outside: Weights, ends: Ends, num_items: int) -> Tensor | None:
    """Return the embedding; for items fed as the number of their id, as DeepLog's are, the numbers."""
    if ends.feed == NUMBER:
        return torch.arange(num_items, dtype=outside[ends.output[-1]].dtype)[:, None]
    return outside[ends.embedding] if ends.feed in (EMBEDDED, TIED) and ends.embedding else None


def _output(outside: Weights, ends: Ends, recurrent: Recurrent, hints: Hints) -> tuple[Weights, dict[str, Any]]:
    """Return the output's weights by our names, and what the configuration says of an output of two layers."""
    matrices = [outside[key] for key in ends.output]
    matrices[0] = widened_columns(matrices[0], recurrent.hidden_size)
    layers = [
        {"weight": matrix, "bias": matrix.new_zeros(matrix.size(0)) if bias is None else outside[bias]}
        for matrix, bias in zip(matrices, ends.biases)
    ]
    names = ["linear"] if len(layers) == 1 else ["head", "linear"]
    weights = {f"{name}.{part}": tensor for name, layer in zip(names, layers) for part, tensor in layer.items()}
    if len(layers) == 1:
        if hints.activation is not None:
            raise CheckpointError(
                f"has an output of one layer, {ends.output[0]}; leave out activation ({flag('activation')})"
            )
        return weights, {}
    if hints.activation not in ACTIVATIONS:
        said = "" if hints.activation is None else f"; {hints.activation!r} is not known"
        raise CheckpointError(
            f"has an output of two layers, {' and '.join(ends.output)}, and weights do not tell what stands between "
            f"them{said}; name it ({flag('activation')}): {', '.join(ACTIVATIONS)}"
        )
    return weights, {"head_size": matrices[0].size(0), "activation": hints.activation}
