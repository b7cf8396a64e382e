"""The predictions of a long answer, ranked and written in pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from msgspec import Raw

from arraylstm_serve.engine.ranking import NOTHING, Ranking, Selection, log_sum_exp, rank_in_pieces
from arraylstm_serve.heavy import PIECE
from arraylstm_serve.sessions.model import Model

Write = Callable[[Model, Ranking], bytes]
"""Writes predictions as the elements of a JSON array, without its brackets."""


class Predictions(NamedTuple):
    """The predictions of an answer: as a ranking, or as JSON if they were written in pieces."""

    ranking: Ranking = NOTHING
    written: Raw | None = None


def predict_in_pieces(
    model: Model, slot: int, selection: Selection, write: Write | None
) -> Generator[None, None, Predictions]:
    """Rank the most likely next items of a slot, and write them; stop after each piece.

    Args:
        model: whose slot it is.
        slot: its state does not change meanwhile.
        selection: the predictions wanted.
        write: writes them; without it they are returned as a ranking.
    """
    rankings: list[Ranking] = []
    written: list[bytes] = []
    left = selection.top_k
    for ranking in _rankings(model, slot, selection.depth):
        chosen = selection.choose(ranking, left)
        left -= len(chosen.ids)
        if write is None:
            rankings.append(chosen)
        elif chosen.ids:
            written.append(write(model, chosen))
        yield
    if write is not None:
        return Predictions(written=Raw(b"[%s]" % b",".join(written)))
    ids = [item for ranking in rankings for item in ranking.ids]
    return Predictions(Ranking(ids, [value for ranking in rankings for value in ranking.probabilities]))


def _rankings(model: Model, slot: int, depth: int) -> Iterator[Ranking]:
    """Yield the `depth` most likely next items of a slot in pieces, the most likely first."""
    if depth <= PIECE:
        yield model.rank(slot, depth)
    else:
        logits = model.logits(slot)[None]
        yield from rank_in_pieces(logits, log_sum_exp(logits), depth, PIECE)
