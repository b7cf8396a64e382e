"""Ranking rows of logits: one or two rows are ranked in another way than many, with the same results."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from arraylstm_serve.engine.ranking import FEW, log_sum_exp, rank

SOME = FEW + 1


@given(st.integers(1, 90), st.integers(0, 2), st.integers(0, 2**32 - 1), st.data())
def test_a_row_is_ranked_the_same_alone_and_among_many(width, decimals, seed, data):
    """Ids, their order and every bit of the probabilities are the same, however many logits tie or are -inf."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(SOME, width)).astype(np.float32).round(decimals)
    logits[random.random(logits.shape) < 0.1] = -np.inf
    logits[:, random.integers(width)] = 0
    depth = data.draw(st.integers(1, width))
    log_sums = log_sum_exp(logits)
    together = rank(logits, log_sums, depth)
    assert [rank(logits[[n]], log_sums[[n]], depth)[0] for n in range(SOME)] == together
