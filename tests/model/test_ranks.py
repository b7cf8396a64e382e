"""The rank of an item, by one rule for training, the exporter and the server."""

import numpy as np
import pytest
import torch

from arraylstm.ranks import ranks

SERVED = pytest.importorskip("arraylstm_serve.engine.ranking")


@pytest.mark.parametrize("unknown", [None, 0, 4, 8])
def test_a_rank_is_the_servers_whatever_ties_there_are(unknown):
    """Small integers as scores tie often; each rank is that of `observe`, and the least of them is 1."""
    scores = torch.randint(0, 4, (500, 9), generator=torch.Generator().manual_seed(2)).float()
    targets = torch.randint(0, 9, (500,), generator=torch.Generator().manual_seed(3))
    _, expected = SERVED.observe(scores.numpy(), SERVED.log_sum_exp(scores.numpy()), targets.numpy(), unknown)
    found = ranks(scores, targets, unknown)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.min() == 1
    assert ranks(torch.zeros(1, 9), targets[:1]).item() == 1


@pytest.mark.parametrize("unknown", [0, 1, 3])
def test_known_items_are_ranked_as_if_the_unknown_one_were_not_there(unknown):
    """A known item's rank is that of the scores without the unknown item's; that one comes behind all."""
    scores = torch.randint(0, 3, (200, 4), generator=torch.Generator().manual_seed(5)).float()
    known = [item for item in range(4) if item != unknown]
    for place, item in enumerate(known):
        found = ranks(scores, torch.full((200,), item), unknown)
        assert torch.equal(found, ranks(scores[:, known], torch.full((200,), place)))
    assert ranks(scores, torch.full((200,), unknown), unknown).unique().tolist() == [4]


def test_a_score_that_is_not_a_number_is_ranked_behind_all():
    """NaN is above nothing and below nothing; it must not count as the most likely."""
    scores = torch.tensor([[torch.nan, 1.0, 2.0], [torch.nan] * 3])
    assert ranks(scores, torch.tensor([0, 1])).tolist() == [4, 4]
