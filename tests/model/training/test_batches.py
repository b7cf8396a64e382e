"""Sessions as pieces: nothing is lost, nothing read twice, and little padded."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from arraylstm.training.batches import Batches

SESSIONS = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8], [3, 3, 3, 3], [2, 1]]


def pairs(pieces):
    """What was read just before each target."""
    found = Counter()
    for piece in pieces:
        found.update(zip(piece.items.flatten()[piece.places].tolist(), piece.targets.tolist()))
    return found


@pytest.mark.parametrize("steps", [1, 2, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("batch_tokens", [1, 7, 1000])
def test_every_item_is_predicted_once_from_the_one_before(batch_size, batch_tokens, steps):
    """Whatever the bounds; a pass has as many pieces as it says, and none is larger than it may be."""
    batches = Batches(SESSIONS, -1, batch_size, batch_tokens, steps)
    expected = Counter(pair for session in SESSIONS for pair in pairwise(session))
    for pieces in (list(batches.in_order()), list(batches.shuffled(seed=1, epoch=2))):
        assert pairs(pieces) == expected
        assert len(pieces) == len(batches)
        assert all(piece.items.numel() <= max(batch_tokens, 1) for piece in pieces)
        assert all(piece.items.size(0) <= batch_size and piece.items.size(1) <= steps for piece in pieces)


def test_reversed_sessions_are_read_from_their_ends():
    """All of them with probability 1, in long sessions piece by piece."""
    batches = Batches(SESSIONS, -1, 3, 100, 4)
    expected = Counter(pair[::-1] for session in SESSIONS for pair in pairwise(session))
    assert pairs(batches.shuffled(0, 0, reverse=1.0)) == expected


def test_padding_within_sessions_is_not_predicted():
    """A token that stands for nothing is read, as the model's own code reads it, and is no target."""
    (piece,) = Batches([[5, 0, 6], [7, 0, 0]], 0, 8, 100, 100).in_order()
    assert piece.targets.tolist() == [6]


def test_a_long_session_costs_its_neighbours_no_padding():
    """Twice the items are read at most, however lengths differ."""
    sessions = [[1] * 20_000, *([[1] * (2 + at % 7) for at in range(63)]), [1] * 900]
    read = sum(piece.items.numel() for piece in Batches(sessions, -1, 64, 16_384, 128).in_order())
    assert read <= 2 * sum(map(len, sessions))


def test_rows_go_on_as_the_first_of_the_piece_before():
    """The items of a row, piece after piece, are its session."""
    read, sessions = [], [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 14, 15]]
    for piece in Batches(sessions, -1, 8, 100, 2).in_order():
        rows = [[] for _ in piece.items] if piece.begins else read[: len(piece.items)]
        read = [row + items for row, items in zip(rows, piece.items.tolist())]
    assert read == [[1, 2, 3, 4, 5]]


def test_the_order_follows_from_seed_and_epoch():
    """The same again for both, another for another of either."""
    batches = Batches([[at, at + 1] for at in range(50)], -1, 1, 100, 10)

    def order(seed, epoch):
        return torch.cat([piece.targets for piece in batches.shuffled(seed, epoch)]).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(*given)) for given in ((1, 2), (2, 1), (1, 3), (2**63 - 1, 7))}) == 4
