"""What lies around the recurrent part of a network: how items are fed to it, and the layers that score them.

Every way to read the matrices is tried. If the shapes allow one way, it is taken; if they allow several, the hints must
leave one.
"""

import re
from collections.abc import Iterator
from itertools import pairwise, permutations
from typing import NamedTuple

import torch

from arraylstm.errors import CheckpointError
from arraylstm.foreign.described import Hints, Weights, flag, shapes
from arraylstm.foreign.lstms import Recurrent

ONE_HOT, NUMBER, EMBEDDED, TIED = "as one-hot vectors", "as the number of their id", "by", "and scored by"
DEEPEST = 2
"""How many layers an output may have."""

MOST_MATRICES = 3


class Ends(NamedTuple):
    """One way to read the matrices beside an LSTM."""

    feed: str
    """How items are fed, one of the words above."""
    embedding: str | None
    """The key of the embedding (V, I)."""
    output: tuple[str, ...]
    """The keys of the output's layers; of the embedding, if that scores the items too."""
    biases: tuple[str | None, ...]
    """The keys of their biases, if they have any."""

    def __str__(self) -> str:
        """Say it in words."""
        fed = f"{self.feed} {self.embedding}" if self.embedding else self.feed
        scored = "" if self.feed == TIED else f" and scored by {' and '.join(self.output)}"
        return f"items fed {fed}{scored}"


def find_ends(outside: Weights, recurrent: Recurrent, hints: Hints) -> Ends:
    """Return the one way to read all that lies beside an LSTM.

    Raises:
        CheckpointError: there is none, or there are several that differ.
    """
    readings = [ends for ends in _readings(outside) if _fits(ends, outside, recurrent, hints)]
    asked = [ends for ends in readings if _as_asked(ends, hints)]
    if not readings:
        raise CheckpointError(_nothing_fits(outside, recurrent))
    if not asked:
        said = " and ".join(flag(name) for name in ("tied", "no_embedding") if getattr(hints, name))
        raise CheckpointError(f"is read with {'; or '.join(map(str, readings))}; that is not what {said} says")
    if len(asked) > 1 and not _alike(asked, outside):
        raise CheckpointError(_ambiguous(asked))
    if asked[0].feed == TIED and not hints.tied and "emb" not in asked[0].output[0].lower():
        raise CheckpointError(
            f"has no matrix but {asked[0].output[0]} beside the LSTM; if it is the embedding and scores the items too, "
            f"say so ({flag('tied')})"
        )
    return asked[0]


def _readings(outside: Weights) -> Iterator[Ends]:
    """Yield every way to have one matrix or none as the embedding, and all others as the output's layers."""
    matrices = [key for key, tensor in outside.items() if tensor.dim() == 2]
    vectors = [key for key, tensor in outside.items() if tensor.dim() == 1]
    if len(matrices) > MOST_MATRICES or len(matrices) + len(vectors) < len(outside):
        return
    for embedding in (None, *matrices):
        others = [key for key in matrices if key != embedding]
        for output in permutations(others) if others else [(embedding,)] if embedding else []:
            biases = _biases(output, vectors)
            feeds = (ONE_HOT, NUMBER) if embedding is None else (EMBEDDED if others else TIED,)
            if biases is not None and 0 < len(output) <= DEEPEST:
                for feed in feeds:
                    yield Ends(feed, embedding, output, biases)


def _biases(output: tuple[str, ...], vectors: list[str]) -> tuple[str | None, ...] | None:
    """Return the bias of each layer, or None unless that accounts for all vectors; one may go by a name of its own."""
    partners = [re.sub(r"weight$", "bias", key) for key in output]
    biases = [partner if partner in vectors else None for partner in partners]
    left = [key for key in vectors if key not in biases]
    if len(left) == 1 and biases[-1] is None and "bias" in left[0]:
        biases[-1] = left.pop()
    return None if left else tuple(biases)


def _fits(ends: Ends, outside: Weights, recurrent: Recurrent, hints: Hints) -> bool:
    """Tell whether all shapes are right for a way to read the matrices."""
    layers = [list(outside[key].shape) for key in ends.output]
    num_items = layers[-1][0]
    inputs = {
        ONE_HOT: recurrent.input_size == num_items,
        NUMBER: recurrent.input_size == 1 < num_items,
        EMBEDDED: ends.embedding is not None
        and list(outside[ends.embedding].shape) == [num_items, recurrent.input_size],
        TIED: recurrent.input_size == layers[0][1],
    }
    has_own_bias = ends.embedding is not None and re.sub(r"weight$", "bias", ends.embedding) in outside
    return (
        inputs[ends.feed]
        and layers[0][1] == recurrent.output_size
        and all(above[1] == below[0] for below, above in pairwise(layers))
        and all(bias is None or list(outside[bias].shape) == [rows] for bias, (rows, _) in zip(ends.biases, layers))
        and (not has_own_bias or hints.tied)  # an nn.Embedding has no bias
    )


def _as_asked(ends: Ends, hints: Hints) -> bool:
    """Tell whether a way to read the matrices is what the hints say."""
    tied = ends.feed == TIED
    return (tied or not hints.tied) and (ends.embedding is None or not hints.no_embedding)


def _alike(readings: list[Ends], outside: Weights) -> bool:
    """Tell whether several ways to read the matrices give the same model, as those of tied weights do."""
    first, *others = ([*filter(None, (ends.embedding,)), *ends.output] for ends in readings)
    return (
        all(
            len(first) == len(other) and all(torch.equal(outside[a], outside[b]) for a, b in zip(first, other))
            for other in others
        )
        and len({ends.feed for ends in readings}) == 1
    )


def _ambiguous(readings: list[Ends]) -> str:
    """Return why one of several readings cannot be chosen, and what settles it."""
    feeds = {ends.feed for ends in readings}
    if feeds == {EMBEDDED} and all(len(ends.output) == 1 for ends in readings):
        matrices = [str(readings[0].embedding), readings[0].output[0]]
        return (
            f"either of {' and '.join(matrices)} may be the embedding and the other the output layer; "
            "give the output layer a bias, of zeros if it has none, and save again"
        )
    ways = "; or ".join(map(str, readings))
    remedies = [flag("tied")] if TIED in feeds else []
    remedies += [f"{flag('no_embedding')}"] if ONE_HOT in feeds else []
    remedies = remedies or ["give the layers of the output biases, of zeros if they have none, and save again"]
    return f"can be read in {len(readings)} ways: {ways}. Say which: {' or '.join(remedies)}"


def _nothing_fits(outside: Weights, recurrent: Recurrent) -> str:
    inputs, units = recurrent.input_size, recurrent.output_size
    return (
        f"around an LSTM of {inputs} inputs and {units} units, an output layer (V, {units}), "
        f"with or without bias, and an embedding (V, {inputs}) (none where V = {inputs}) are needed and "
        f"nothing else; there are {shapes(outside) or 'none'}. What takes no part in the answers can be left out "
        f"({flag('ignore')})"
    )
