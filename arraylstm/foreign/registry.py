"""The kinds of state dicts that can be read."""

import re
from typing import Any

from arraylstm.errors import CheckpointError
from arraylstm.foreign.contents import check_tensors, state_dict, unwrapped
from arraylstm.foreign.described import Described, Hints, Reader, refuse_hints, some
from arraylstm.foreign.networks import around_lstm
from arraylstm.foreign.others import lstm2002, markov, my_network

KNOWN: dict[str, Reader] = {
    r"^lstm\.i2h\.weight$": my_network,
    r"(^|\.)weight_ih(_l0)?$": around_lstm,
    r"^stack_rnn\.0\.pc_c2fg$": lstm2002,
    r"^cell_0\.W_xz$": markov,
}
"""For the pattern of a key that only one kind of state dict has, the reader of that kind."""


def describe(content: dict[Any, Any], hints: Hints) -> Described:
    """Return the model that a state dict of another program is.

    Args:
        content: what the file holds: the state dict, or a training checkpoint with the state dict under a key.
        hints: what the caller knows of it.

    Raises:
        CheckpointError: it is of no known kind, or something in it is left over, ambiguous or of another shape.
    """
    weights = state_dict(content, _known, hints)
    for candidate in (weights, unwrapped(weights)):
        read = _reader(candidate)
        if read is not None:
            check_tensors(candidate)
            if read is not around_lstm:
                refuse_hints(hints, "no network around nn.LSTM", "cell", "weights", "ignore")
            return read(candidate, hints)
    raise CheckpointError(
        "is neither an arraylstm model nor a state dict that load knows: it lacks lstm.i2h.weight (MyNetwork), "
        "*.weight_ih_l0 (a network around nn.LSTM), stack_rnn.0.pc_c2fg (LSTM2002) and cell_0.W_xz (MarkovLSTM); "
        f"its keys are {some(weights)}"
    )


def _known(content: dict[Any, Any]) -> bool:
    """Tell whether a dict has the keys of a state dict that can be read, as they are or under a prefix."""
    return _reader(content) is not None or _reader(unwrapped(content)) is not None


def _reader(weights: dict[Any, Any]) -> Reader | None:
    """Return the reader for state dicts with such keys."""
    found = (read for pattern, read in KNOWN.items() if any(re.search(pattern, str(key)) for key in weights))
    return next(found, None)
