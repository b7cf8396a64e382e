"""The likeliest items of each row, in ONNX's text format.

onnxruntime's TopK sorts up to 256 numbers in one block of threads; for more it takes another way, several times slower.
So each row is cut into groups of at most 256. The best of each group are found, then the best of them, and so on.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

GROUP = 256
"""The most numbers that one block of threads sorts."""

UNLIKELY = -3.0e38
"""A log-probability that is not above this is none: it is -inf, or fills a group up."""


class Part(NamedTuple):
    """A part of a graph: its constants, and its nodes."""

    constants: str
    nodes: str


def likeliest(values: str, width: int, k: int) -> Part:
    """Return the part that finds the k largest of each row of `values` (B, width): `tops` and `top_ids` (B, k).

    They fall, and ties are in the order of ids. The id of a value that is not above `UNLIKELY` may be any number.

    Args:
        values: the name of the values, float32.
        width: at least k.
        k: at most 16.
    """
    count, size = _groups(width, k)
    constants, nodes = [f"int64[1] top_k = {{{k}}}"], []
    if count == 1:
        return Part(constants[0], f"tops, top_ids = TopK <axis = -1> ({values}, top_k)")
    if count * size > width:
        constants += [f"int64[4] top_pads = {{0, 0, 0, {count * size - width}}}", f"float top_pad = {{{UNLIKELY}}}"]
        nodes += [f"top_padded = Pad ({values}, top_pads, top_pad)"]
        values = "top_padded"
    starts = ", ".join(str(group * size) for group in range(count))
    constants += [f"int64[3] top_cut = {{0, {count}, {size}}}", f"int64[1, {count}, 1] top_starts = {{{starts}}}"]
    nodes += [
        f"top_groups = Reshape ({values}, top_cut)",
        "top_values_0, top_places_0 = TopK <axis = -1> (top_groups, top_k)",
        "top_ids_0 = Add (top_places_0, top_starts)",
    ]
    stage = 0
    while count > 1:
        joined = min(count, GROUP // k)
        count //= joined
        shape = [0, count, joined * k] if count > 1 else [0, joined * k]
        now, stage = stage, stage + 1
        best, ids = (f"top_values_{stage}", f"top_ids_{stage}") if count > 1 else ("tops", "top_ids")
        constants += [f"int64[{len(shape)}] top_shape_{now} = {{{', '.join(map(str, shape))}}}"]
        nodes += [
            f"top_joined_{now} = Reshape (top_values_{now}, top_shape_{now})",
            f"top_joined_ids_{now} = Reshape (top_ids_{now}, top_shape_{now})",
            f"{best}, top_places_{stage} = TopK <axis = -1> (top_joined_{now}, top_k)",
            f"{ids} = GatherElements <axis = -1> (top_joined_ids_{now}, top_places_{stage})",
        ]
    return Part(", ".join(constants), "\n".join(nodes))


def _groups(width: int, k: int) -> tuple[int, int]:
    """Return how many groups to cut a row into, and their size.

    From stage to stage the number of groups falls by the same factor, without a remainder.
    """
    count, unit = ceil(width / GROUP), 1
    while ceil(count / unit) > GROUP // k:
        unit *= GROUP // k
    count = ceil(count / unit) * unit
    return count, ceil(width / count)
